"""The account of a model's time: every operator of a run, and the multiply-adds of its products."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from benchmarks import account
from onnxq.files import save

CHANNELS, COLUMNS = 8, 16


@pytest.fixture
def model(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Tanh", ["y"], ["z"])]
    kind = TensorProto.FLOAT
    weight = helper.make_tensor("w", kind, [CHANNELS, COLUMNS], [0.5] * (CHANNELS * COLUMNS))
    source = helper.make_tensor_value_info("x", kind, ["batch", "length", CHANNELS])
    output = helper.make_tensor_value_info("z", kind, ["batch", "length", COLUMNS])
    graph = helper.make_graph(nodes, "g", [source], [output], [weight])
    path = tmp_path / "model.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(ir.from_proto(made), path)
    return path


def test_products_have_the_work_of_the_shape(model):
    lines, least = account.account(model, (2, 3), threads=1)
    assert {kind: line.nodes for kind, line in lines.items()} == {"MatMul": 1, "Tanh": 1}
    assert lines["MatMul"].macs == 2 * 3 * CHANNELS * COLUMNS
    assert lines["Tanh"].macs == 0
    assert least > 0


def test_figures_are_written_for_each_model_and_shape(model, tmp_path, monkeypatch):
    monkeypatch.setattr(account, "LARGE", (8, 8, 8))
    output = tmp_path / "account.json"
    account.main([f"tiny={model}", "--shapes", "1x2", "2x2", "--threads", "1", "-o", str(output)])
    (accounts,) = json.loads(output.read_text())["accounts"].values()
    assert [each["shape"] for each in accounts] == ["1x2", "2x2"]
    assert accounts[1]["operators"]["MatMul"]["gop"] == 2 * 2 * 2 * CHANNELS * COLUMNS / 1e9
