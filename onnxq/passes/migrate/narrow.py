"""The narrow product beside a linear: ``x[..., S] @ W[S]``, and where ``x[..., S]`` comes from.

It comes from a Gather on the last axis of x; or, where x = act(up(z)) or x = act(gate(z)) * up(z), from the
same with S's columns of the linears alone, so that nothing is gathered. x itself keeps its width. Gate and up
may be columns of one linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.activation import Activation, find_activation
from onnxq.ir.append import join
from onnxq.ir.channels import live_channels
from onnxq.ir.linear import Linear, rewrite_linear
from onnxq.ir.part import Part, part_giving
from onnxq.ir.precision import round_once
from onnxq.ir.walk import is_op, producer, root_of

OWNER = "split-channels"
_MARK = "onnxq.pass"


@dataclass(frozen=True, eq=False)
class Hidden:
    """The hidden tensor of a feed-forward block, of which single channels can be computed alone.

    Attributes:
        value: The tensor.
        activation: What is applied to the first linear, or to the gate.
        argument: The linear, or the columns of one, under the activation.
        factor: What is multiplied in, in a gated block.
        product: The Mul of a gated block.
    """

    value: ir.Value
    activation: Activation
    argument: Part
    factor: Part | None = None
    product: ir.Node | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """What it is computed from: the argument and, in a gated block, the factor."""
        return (self.argument,) if self.factor is None else (self.argument, self.factor)


def find_hidden(value: ir.Value) -> Hidden | None:
    """The feed-forward block that gives `value` outright; None if there is none that can be narrowed."""
    node = value.producer()
    found = _plain(value, node) if node is not None else None
    if found is None and is_op(node, "Mul") and node is not None:
        found = _gated(value, node)
    if found is None or found.activation.bias is not None:
        return None
    graph = node.graph if node is not None else None
    apart = any(part.linear.node.graph is not graph for part in found.parts)
    return None if apart else found


def _plain(value: ir.Value, node: ir.Node) -> Hidden | None:
    activation = find_activation(node)
    argument = part_giving(activation.input) if activation is not None else None
    if activation is None or argument is None or activation.output is not value:
        return None
    return Hidden(value, activation, argument)


def _gated(value: ir.Value, product: ir.Node) -> Hidden | None:
    for index in (0, 1):
        gated, other = product.inputs[index], product.inputs[1 - index]
        last = producer(gated)
        activation = find_activation(last) if last is not None else None
        if activation is None or other is None:
            continue
        argument, factor = part_giving(activation.input), part_giving(other)
        same = argument is not None and factor is not None and argument.width == factor.width
        if argument is not None and same:
            return Hidden(value, activation, argument, factor, product)
    return None


def is_narrow(linear: Linear) -> bool:
    """Whether `linear` is itself a narrow product that this module made."""
    return linear.node.metadata_props.get(_MARK) == OWNER


def is_split(linear: Linear) -> bool:
    """Whether `linear` already has a narrow product beside it, and rows of zeros for its channels."""
    sums = [user for user, _ in linear.output.uses() if is_op(user, "Sum")]
    marked = any(user.metadata_props.get(_MARK) == OWNER for user in sums)
    return marked and not live_channels([linear.weight]).all()


def gather_channels(value: ir.Value, channels: np.ndarray, name: str, near: ir.Node, edit: Edit) -> ir.Value:
    """``value[..., channels]`` under `name`, computed in front of `near`; `channels` may repeat."""
    indices = edit.constant(channels.astype(np.int64), f"{name}_channels", near=near)
    (gathered,) = edit.insert("Gather", [value, indices], {"axis": -1}, before=near, names=[name])
    return _typed(gathered, value, len(channels))


def branch_channels(hidden: Hidden, channels: np.ndarray, near: ir.Node, edit: Edit) -> ir.Value:
    """``hidden.value[..., channels]`` from the columns of the linears, computed in front of `near`."""
    copies = {hidden.activation.input: _columns(hidden.argument, channels, near, edit)}
    narrow = _copied(hidden.activation.output, hidden.activation, copies, near, edit)
    _typed(narrow, hidden.value, len(channels))
    if hidden.factor is None or hidden.product is None:
        return narrow
    factor = _columns(hidden.factor, channels, near, edit)
    parts = [factor if part is hidden.factor.value else narrow for part in hidden.product.inputs]
    (product,) = edit.insert("Mul", parts, before=near, names=[f"{hidden.value.name}_outliers"])
    return _typed(product, hidden.value, len(channels))


def add_narrow_product(linear: Linear, narrow: ir.Value, channels: np.ndarray, edit: Edit) -> None:
    """Move the rows `channels` of `linear` into a product of `narrow` with them, in float.

    The two are joined by a Sum: the residual Add behind the linear if there is one, which is then no Add
    that onnxruntime would fuse with the norm behind it.
    """
    rows, rest, bias = linear.weight[channels], linear.weight.copy(), linear.bias
    rest[channels] = 0
    rewrite_linear(linear, edit, rest, bias)
    label = linear.node.name or str(linear.output.name)
    part = edit.constant(round_once(rows, linear.dtype), f"{label}_outlier_rows", near=linear.node)
    (product,) = edit.insert("MatMul", [narrow, part], before=linear.node, names=[f"{label}_outliers"])
    _typed(product, linear.output, linear.columns)
    residual = _residual_behind(linear.output)
    if residual is None:
        joined = join(edit, linear.output, "Sum", product)
        _unmark(joined)
        return
    output = residual.outputs[0]
    (joined,) = edit.insert(
        "Sum", [*residual.inputs, product], before=residual, names=[f"{output.name}_summed"], like=output
    )
    edit.take_over(output, joined)


def _residual_behind(output: ir.Value) -> ir.Node | None:
    """The addition of a computed value that alone reads `output`, in the same graph."""
    uses = output.uses()
    node = next(iter(uses)).node if len(uses) == 1 else None
    made = output.producer()
    if output.is_graph_output() or not is_op(node, "Add", "Sum") or node is None or made is None:
        return None
    constant = any(part is None or root_of(part) is not None for part in node.inputs)
    return None if constant or node.graph is not made.graph else node


def _columns(part: Part, channels: np.ndarray, near: ir.Node, edit: Edit) -> ir.Value:
    """The columns `channels` of `part`, computed alone."""
    linear = part.linear
    label = (linear.node.name if part.is_whole else None) or str(part.value.name)
    weight = round_once(part.weight[:, channels], linear.dtype)
    columns = edit.constant(weight, f"{label}_outlier_columns", near=near)
    (value,) = edit.insert("MatMul", [linear.activation, columns], before=near, names=[f"{label}_outliers"])
    _typed(value, part.value, len(channels))
    if part.bias is None:
        return value
    bias = edit.constant(round_once(part.bias[channels], linear.dtype), f"{label}_outlier_bias", near=near)
    (biased,) = edit.insert("Add", [value, bias], before=near, names=[f"{label}_outliers_biased"])
    return _typed(biased, part.value, len(channels))


def _copied(
    value: ir.Value, activation: Activation, copies: dict[ir.Value, ir.Value], near: ir.Node, edit: Edit
) -> ir.Value:
    """`value` computed from the copies, by copies of the nodes of `activation`; constants are shared."""
    node = value.producer()
    if value not in copies and node in activation.nodes and node is not None:
        inputs = [
            None if part is None else _copied(part, activation, copies, near, edit) for part in node.inputs
        ]
        names = [f"{out.name}_outliers" for out in node.outputs]
        made = edit.insert(
            node.op_type, inputs, dict(node.attributes), before=near, names=names, domain=node.domain
        )
        copies |= dict(zip(node.outputs, made, strict=True))
    return copies.get(value, value)


def _typed(value: ir.Value, like: ir.Value, channels: int) -> ir.Value:
    """`value` with the type and shape of `like`, but for its last axis."""
    value.type = None if like.dtype is None else ir.TensorType(like.dtype)
    if like.shape is not None and len(like.shape):
        value.shape = ir.Shape([*like.shape[:-1], channels])
    return value


def _unmark(joined: ir.Value) -> None:
    """Take our mark off the node in front of the Sum, which is the old one built anew."""
    node = joined.producer()
    old = producer(node.inputs[0]) if node is not None else None
    if old is not None:
        old.metadata_props.pop(_MARK, None)
