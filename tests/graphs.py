"""Models from ONNX text, and what a runtime without optimisations computes with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from onnxq.contract import Example
from onnxq.runtime import SessionSettings, open_session

PLAIN = SessionSettings(threads=1, level="disabled")


def model_of(body: str, **constants: np.ndarray) -> ir.Model:
    """A model of opset 18 from graphs and functions in text form, the header left out."""
    return Example(f'<ir_version: 10, opset_import: ["": 18, "here": 1]> {body}', constants=constants).model()


def outputs_of(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return open_session(model, PLAIN).run(feeds)


def check(model: ir.Model) -> None:
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def node_of(model: ir.Model, op_type: str) -> ir.Node:
    """The only node of that type, wherever it is."""
    roots = (model.graph, *model.functions.values())
    (node,) = [node for root in roots for node in root.all_nodes() if node.op_type == op_type]
    return node


def ops_of(model: ir.Model) -> list[str]:
    roots = (model.graph, *model.functions.values())
    return [node.op_type for root in roots for node in root.all_nodes()]
