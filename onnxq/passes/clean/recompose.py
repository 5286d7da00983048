"""One operator in the place of many nodes: what the recompositions of norms and activations share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Edit, Reject
from onnxq.edit import label_of
from onnxq.ir.flow import through_casts
from onnxq.ir.norm import Norm, Place, find_norm
from onnxq.ir.walk import constant_dtype, constant_shape, is_op, rank_of

PRECISION = "it is computed in another precision than its operator would"
DOUBLE = "the operator computes in float, the nodes in double"
RANK = "its scale or shift has more axes than its input is known to have"
_STASHED = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class SpelledNorm:
    """A norm to be replaced by an operator that reads `source`."""

    norm: Norm
    source: ir.Value


def too_old(node: ir.Node, context: Context, operator: str, opset: int) -> Reject | None:
    """The reason that the operator set gives, if it lacks the operator."""
    if context.opset >= opset:
        return None
    return Reject(f"opset {context.opset} has no {operator}; --pass raise-opset", label_of(node))


def match_norm(
    node: ir.Node, context: Context, kind: str, operator: str, opset: int
) -> SpelledNorm | Reject | None:
    """A spelled-out norm of one kind that ends at `node` and that `operator` can compute."""
    if not is_op(node, "Mul", "Add", "Div"):
        return None
    norm = find_norm(node)
    if not isinstance(norm, Norm):
        return norm
    if norm.kind != kind or norm.is_operator:
        return None
    if kind == "rms" and norm.beta is not None:  # its operator has no place for a shift
        inner = norm.nodes[:-1]
        norm = replace(norm, nodes=inner, output=inner[-1].outputs[0], beta=None, beta_place=None)
    if reject := too_old(node, context, operator, opset):
        return reject
    source = _source(norm, node)
    return source if isinstance(source, Reject) else SpelledNorm(norm, source)


def replace_norm(found: SpelledNorm, edit: Edit, operator: str) -> None:
    """Put `operator` in the place of the nodes of a norm."""
    norm = found.norm
    vectors = [_vector(norm, norm.gamma, norm.gamma_place, edit)]
    if norm.beta is not None:
        vectors.append(_vector(norm, norm.beta, norm.beta_place, edit))
    attributes = {"axis": -1, "epsilon": float(norm.epsilon)}
    substitute(norm.nodes, operator, [found.source, *vectors], attributes, edit)


def substitute(
    nodes: Sequence[ir.Node],
    operator: str,
    inputs: Sequence[ir.Value],
    attributes: dict[str, Any],
    edit: Edit,
) -> None:
    """Put one node in the place of `nodes`, of which the last gives the result and others may be read too."""
    last = nodes[-1]
    output = last.outputs[0]
    (result,) = edit.insert(operator, inputs, attributes, before=last, names=[str(output.name)], like=output)
    made = result.producer()
    assert made is not None
    for key, text in last.metadata_props.items():  # where the exporter says the node came from
        made.metadata_props.setdefault(key, text)
    edit.replace(output, result)
    edit.remove_unused(last)


def _source(norm: Norm, node: ir.Node) -> ir.Value | Reject:
    """What the operator shall read: the input of the norm, in the element type of its output."""
    wanted = norm.output.dtype or ir.DataType.from_numpy(norm.dtype)
    if wanted not in _STASHED:
        return Reject(DOUBLE, label_of(node))
    ranks = [len(constant_shape(place[0].inputs[place[1]]) or ()) for place in _places(norm)]
    if max(ranks, default=1) > max(1, rank_of(norm.input) or 0):
        return Reject(RANK, label_of(node))
    for source in (norm.input, through_casts(norm.input)):
        if source.dtype == wanted or (source.dtype is None and not _casts(norm)):
            return source
    return Reject(PRECISION, label_of(node))


def _places(norm: Norm) -> list[Place]:
    return [place for place in (norm.gamma_place, norm.beta_place) if place is not None]


def _casts(norm: Norm) -> bool:
    """Whether casts stand between the nodes of the norm."""
    read = [value for node in norm.nodes for value in node.inputs if value is not None]
    return any(is_op(value.producer(), "Cast") for value in read)


def _vector(norm: Norm, array: np.ndarray, place: Place | None, edit: Edit) -> ir.Value:
    """The constant [C] that the norm reads, or a new one where it reads none of that form."""
    dtype = (norm.output.dtype or ir.DataType.from_numpy(norm.dtype)).numpy()
    name = "scale"
    if place is not None:
        value = place[0].inputs[place[1]]
        assert value is not None
        is_plain = value.is_initializer() or is_op(value.producer(), "Constant")
        if is_plain and constant_shape(value) == (norm.channels,) and constant_dtype(value) == dtype:
            return value
        name = str(value.name)
    return edit.constant(array.astype(dtype), name, near=norm.nodes[-1])
