"""op(x: float32)  =>  Cast32(op(Cast16(x))), Cast16(Cast32(h)) being h

Fires on operators that runtimes have for float16, one by one in the order of the graph; where two of them
meet no cast is left, so that what remains are casts at the model's inputs and outputs, which keep their
types, and around what has to stay float32: operators that are told to, those whose numbers would overflow,
and those that there is no float16 form of. Constants are rounded once.

Numbers overflow beyond 65,504. A node whose inputs or outputs came within `headroom` of that on calibration
data stays float32. What reaches below -1e9 is a mask, not a number: it is cut at -32,768, which a softmax
rounds to nothing all the same, and to which scores can be added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import constant_of, is_overridable, nodes
from onnxq.passes.compress.half_evidence import half_examples
from onnxq.passes.compress.half_operators import can_be_half, float_inputs
from onnxq.statistics import Statistic, Statistics

MASK = -1e9
"""What is below this only ever makes a softmax ignore something."""
CUT = -32768.0
_MASKED = "attention mask"
"""What calibration says of values that it leaves out for the constants of a mask in them."""
_LARGEST = 65504.0
_SMALLEST = 2.0**-14
"""The least normal number; scales below it would lose bits."""


@dataclass(frozen=True, eq=False)
class Convertible:
    """A node to compute in float16.

    Attributes:
        node: It.
        places: Inputs that become float16.
        masks: Those of them that reach below what float16 holds because they mask.
    """

    node: ir.Node
    places: tuple[int, ...]
    masks: frozenset[int]


@dataclass(frozen=True)
class ConvertHalf(Pass):
    """Operators in float32 => the same in float16, between casts.

    Attributes:
        keep: Operators that stay float32, by type.
        skip: Names of nodes that stay float32.
        headroom: How many times larger than what calibration saw numbers may get without overflow.
    """

    keep: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    headroom: float = 4.0

    name: ClassVar[str] = "convert-half"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}), opset=13)

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """Everything that would become float16."""
        opset = model.opset_imports.get("", 1)
        seen: dict[ir.Value, None] = {}
        for node in nodes(model):
            if node.graph is model.graph and can_be_half(node, opset):
                inputs = (node.inputs[place] for place in float_inputs(node))
                values = (*inputs, *node.outputs)
                seen |= {each: None for each in values if each is not None and _is_computed_float(each)}
        return seen

    def match(self, node: ir.Node, context: Context) -> Convertible | Reject | None:
        """An operator with a float16 form, whose numbers fit into it."""
        if node.graph is not context.model.graph or not can_be_half(node, context.opset):
            return None
        places = tuple(float_inputs(node))
        gives = [value for value in node.outputs if value.dtype == ir.DataType.FLOAT]
        if not (places or gives) or _is_constant(node):
            return None
        label = label_of(node)
        if node.op_type in self.keep or label in self.skip:
            return Reject("told to stay float32", label)
        inputs = [node.inputs[place] for place in places]
        masks = set()
        for value in (*inputs, *gives):
            assert value is not None
            reason, is_mask = self._obstacle(value, context.statistics)
            if reason:
                return Reject(reason, label)
            if is_mask:
                masks.add(value)
        scales = inputs[-1:] if node.op_type in ("QuantizeLinear", "DequantizeLinear") else []
        if any(_loses_bits(scale) for scale in scales):
            return Reject("its scale is too small for float16", label)
        masked = frozenset(place for place in places if node.inputs[place] in masks)
        return Convertible(node, places, masked)

    def rewrite(self, found: Convertible, edit: Edit) -> None:
        """The same operator between casts; those that undo each other are left out."""
        node = found.node
        inputs = list(node.inputs)
        for place in found.places:
            value = inputs[place]
            assert value is not None
            inputs[place] = _half(value, node, edit, is_mask=place in found.masks)
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if node.op_type == "Cast":
            attributes["to"] = int(ir.DataType.FLOAT16)
        made = edit.insert(
            node.op_type,
            inputs,
            attributes,
            domain=node.domain,
            before=node,
            names=[f"{value.name}_half" if value.name else "" for value in node.outputs],
        )
        made[0].producer().version = node.version  # type: ignore[union-attr]
        for old, new in zip(list(node.outputs), made, strict=True):
            if old.dtype != ir.DataType.FLOAT:
                new.type, new.shape = old.type, old.shape
                edit.take_over(old, new)
                continue
            new.dtype, new.shape = ir.DataType.FLOAT16, old.shape
            (wide,) = edit.insert(
                "Cast",
                [new],
                {"to": int(ir.DataType.FLOAT)},
                before=node,
                names=[f"{old.name}_float"],
                like=old,
            )
            edit.take_over(old, wide)

    def _obstacle(self, value: ir.Value, statistics: Statistics) -> tuple[str, bool]:
        """Why a value cannot be float16, and whether it masks."""
        constant = constant_of(value)
        if constant is not None and not is_overridable(value):
            finite = constant[np.isfinite(constant)]
            low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
        else:
            seen = statistics.get(str(value.name))
            if seen is None and _MASKED in statistics.skipped.get(str(value.name), ""):
                return "", True
            if seen is None:
                return "calibration has not seen its numbers", False
            low, high = seen.low, seen.high
        is_mask = low < MASK
        most = _LARGEST / self.headroom
        fits = high <= most and (is_mask or low >= -most)
        return "" if fits else f"numbers from {low:.3g} to {high:.3g} come near overflow", is_mask

    @classmethod
    def examples(cls) -> Examples:
        """Chains of operators, masks; numbers that overflow, that nobody saw, and what stays float32."""
        return half_examples()


def _is_constant(node: ir.Node) -> bool:
    """Whether a node has nothing to compute from: such nodes are for folding, but for stored weights."""
    known = all(value is None or constant_of(value) is not None for value in node.inputs)
    return known and node.op_type != "DequantizeLinear"


def _is_computed_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT and constant_of(value) is None


def _loses_bits(scale: ir.Value | None) -> bool:
    constant = None if scale is None else constant_of(scale)
    return constant is None or bool((np.abs(constant) < _SMALLEST).any())


def _half(value: ir.Value, near: ir.Node, edit: Edit, *, is_mask: bool) -> ir.Value:
    """`value` as float16: what it was cast from, a cast that is there already, or a new one."""
    constant = constant_of(value)
    if constant is not None and not is_overridable(value):
        cut = np.where(np.isfinite(constant), np.maximum(constant, CUT), constant)
        return edit.constant(cut.astype(np.float16), f"{value.name}_half", near=near)
    producer = value.producer()
    if producer is not None and _is_own_cast(producer, ir.DataType.FLOAT, edit):
        source = producer.inputs[0]
        assert source is not None
        return source
    for user, _ in value.uses():
        if not is_mask and _is_own_cast(user, ir.DataType.FLOAT16, edit):
            return user.outputs[0]
    start = near
    if is_mask:
        floor = edit.constant(np.asarray(CUT, np.float32), f"{value.name}_floor", near=near)
        (value,) = edit.insert("Max", [value, floor], before=near, names=[f"{value.name}_cut"], like=value)
    else:
        start = _first_after(value, near)
    to_half = {"to": int(ir.DataType.FLOAT16)}
    (narrow,) = edit.insert("Cast", [value], to_half, before=start, names=[f"{value.name}_half"])
    narrow.dtype, narrow.shape = ir.DataType.FLOAT16, value.shape
    return narrow


def _first_after(value: ir.Value, near: ir.Node) -> ir.Node:
    """The first node of the graph of `near` that reads `value`, so that a cast serves all of them."""
    users = {user for user, _ in value.uses() if user.graph is near.graph}
    return next((node for node in near.graph or () if node in users), near)


def _is_own_cast(node: ir.Node, to: ir.DataType, edit: Edit) -> bool:
    ours = node.op_type == "Cast" and node.metadata_props.get("onnxq.pass") == edit.owner
    return ours and node.attributes.get_int("to", 0) == int(to)
