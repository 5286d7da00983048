"""A tensor with channels repeated and divided: ``x[..., idx] / T[idx]``, for free where algebra allows.

    linear gives x                  its columns repeated, divided by T                 no node
    relu(linear), act(g) * linear   the same, and g's columns repeated                 no node
    a norm gives x to linears only  γ/T and β/T, then Gather                           one node
    anything else                   Gather, then Mul                                   two nodes

A norm itself is never widened: its mean and its variance are over its channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.linear import Linear, linear_giving, rewrite_linear
from onnxq.ir.norm import Norm, norm_giving, rewrite_norm
from onnxq.passes.migrate.migration import is_widely_shared
from onnxq.passes.migrate.narrow import Hidden, find_hidden, gather_channels

WIDENED = "_disassembled"
"""End of the name of a tensor whose channels were repeated: statistics of the old one do not fit it."""


@dataclass(frozen=True, eq=False)
class Source:
    """How a tensor can be widened.

    Attributes:
        value: The tensor.
        divided: Linears whose columns are repeated and divided.
        repeated: Linears whose columns are repeated.
        between: Values between those linears and the tensor, which grow with them.
        norm: The norm that takes the division.
    """

    value: ir.Value
    divided: Linear | None = None
    repeated: Linear | None = None
    between: tuple[ir.Value, ...] = ()
    norm: Norm | None = None

    @property
    def nodes(self) -> int:
        """How many nodes the widening costs."""
        return 0 if self.divided is not None else 1 if self.norm is not None else 2


def find_source(value: ir.Value, readers: tuple[Linear, ...]) -> Source:
    """The cheapest way to widen `value`, which `readers` and perhaps others read."""
    alone = not value.is_graph_output() and {user for user, _ in value.uses()} == {
        reader.node for reader in readers
    }
    node = value.producer()
    if not alone or node is None or node.graph is not readers[0].node.graph:
        return Source(value)
    norm = norm_giving(value)
    if norm is not None:
        return Source(value, norm=norm)
    found = _by_columns(value)
    return Source(value) if found is None else found


def widen(source: Source, counts: np.ndarray, reader: Linear, edit: Edit) -> ir.Value:
    """The tensor with channel j as counts[j] copies of x_j / counts[j], in front of `reader`."""
    near = reader.node
    index = np.repeat(np.arange(len(counts)), counts)
    value, name = source.value, str(source.value.name)
    if source.divided is not None:
        _widen_linear(source.divided, index, counts, edit)
        if source.repeated is not None:
            _widen_linear(source.repeated, index, np.ones(counts.shape), edit)
        for grown in (*source.between, value):
            if grown.shape is not None and len(grown.shape):
                grown.shape = ir.Shape([*grown.shape[:-1], len(index)])
        edit.rename(value, f"{name}{WIDENED}")
        return value
    if source.norm is not None:
        norm = source.norm
        beta = None if norm.beta is None else norm.beta.astype(np.float64) / counts
        edit.rename(value, f"{name}_divided")
        rewrite_norm(norm, edit, norm.gamma.astype(np.float64) / counts, beta)
        return gather_channels(norm.output, index, f"{name}{WIDENED}", near, edit)
    copies = gather_channels(value, index, f"{name}_copies", near, edit)
    factor = edit.constant((1 / counts[index]).astype(reader.dtype), f"{name}_parts", near=near)
    return edit.insert("Mul", [copies, factor], before=near, names=[f"{name}{WIDENED}"], like=copies)[0]


def _by_columns(value: ir.Value) -> Source | None:
    linear = linear_giving(value)
    if linear is not None:
        return Source(value, linear, between=_inside(linear)) if _owned(linear, value) else None
    hidden = find_hidden(value)
    if hidden is None or not _private(hidden) or not all(part.is_whole for part in hidden.parts):
        return None  # columns that are cut out by their places cannot grow
    argument = hidden.argument.linear
    if not _owned(argument, argument.output):
        return None
    between = (*_inside(argument), argument.output)
    if hidden.factor is None:
        return Source(value, argument, between=between) if hidden.activation.kind == "relu" else None
    factor = hidden.factor.linear
    if factor.node is argument.node or not _owned(factor, factor.output):
        return None
    inner = [out for node in hidden.activation.nodes for out in node.outputs]
    return Source(value, factor, argument, (*_inside(factor), factor.output, *between, *inner))


def _private(hidden: Hidden) -> bool:
    """Whether nobody outside the block reads what is inside it."""
    inside = {*hidden.activation.nodes, *([hidden.product] if hidden.product is not None else [])}
    values = [out for node in inside for out in node.outputs if out is not hidden.value]
    values += [part.value for part in hidden.parts]
    return all(
        not value.is_graph_output() and all(user in inside for user, _ in value.uses()) for value in values
    )


def _owned(linear: Linear, output: ir.Value) -> bool:
    return linear.output is output and not is_widely_shared(linear)


def _inside(linear: Linear) -> tuple[ir.Value, ...]:
    """What a linear computes before its bias."""
    return (linear.node.outputs[0],)


def _widen_linear(linear: Linear, index: np.ndarray, counts: np.ndarray, edit: Edit) -> None:
    weight = (linear.weight.astype(np.float64) / counts)[:, index]
    bias = None if linear.bias is None else (linear.bias.astype(np.float64) / counts)[index]
    rewrite_linear(replace(linear, columns=len(index)), edit, weight, bias)
