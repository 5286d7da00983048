"""How channels are split into the heads of an attention and merged again, read off reshapes and transposes.

A value of three axes (batch, position, channels) becomes one of four by any chain of Reshape and Transpose;
exporters spell it in many ways, some by way of other shapes. The chain is followed with axes that carry
names: a Reshape may join neighbours and part them again, a Transpose reorders. Where a size is not known as a
number, the symbol that shape inference gave it stands for the axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.ir.channels import reshape_end
from onnxq.ir.walk import constant_shape, input_of, is_op, last_dim, producer, rank_of, scalar_of

_CHAIN_LIMIT = 12
Groups = list[tuple[str, ...]]
"""The named axes that each axis of a value is made of, row-major."""
QUERIES = ("batch", "head", "position", "channel")
KEYS = ("batch", "head", "channel", "position")
"""Keys as the right factor of a product, transposed."""


@dataclass
class Tracker:
    """Named axes: how long they are, and which symbols stand for them.

    Attributes:
        sizes: Length of each axis that is known as a number.
        symbols: Axis that a symbolic dimension stands for.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)

    def learn(self, value: ir.Value, axes: Sequence[str]) -> None:
        """Note that the axes of `value` are `axes`, one each."""
        shape = value.shape if value.shape is not None and len(value.shape) == len(axes) else ()
        for name, size in zip(axes, shape, strict=False):
            if isinstance(size, int):
                self.sizes.setdefault(name, size)
            elif size.value is not None:
                self.symbols.setdefault(size.value, name)

    def follow(self, node: ir.Node, groups: Groups) -> Groups | None:
        """The axes of the output of `node`, whose first input has `groups`; None if they cannot be told."""
        if is_op(node, "Transpose"):
            perm = node.attributes.get("perm")
            if perm is not None and perm.is_ref():
                return None
            order = perm.as_ints() if perm is not None else range(len(groups))[::-1]
            return [groups[index] for index in order] if len(order) == len(groups) else None
        if is_op(node, "Reshape"):
            found = self._regrouped([name for group in groups for name in group], _target(node))
            self._learn_symbols(node.outputs[0], found or [])
            return found
        return list(groups)

    def _regrouped(self, names: list[str], target: Sequence[int | str | None]) -> Groups | None:
        """`names` joined into axes of the lengths `target`, of which one may be unknown."""
        back: Groups = []
        while (
            len(target) > len(back) and (group := self._taken(names, target[-1 - len(back)], -1)) is not None
        ):
            back.insert(0, group)
        front: Groups = []
        while len(target) > len(back) + len(front):
            group = self._taken(names, target[len(front)], 0)
            if group is None:
                break
            front.append(group)
        missing = len(target) - len(back) - len(front)
        if missing == 1:
            return [*front, tuple(names), *back]
        if missing or not (front or back) or any(self.sizes.get(name) != 1 for name in names):
            return None
        parts, place = [*front, *back], min(len(front), len(front) + len(back) - 1)
        rest = tuple(names)  # of length one: they belong to any neighbour
        parts[place] = (*rest, *parts[place]) if place == len(front) else (*parts[place], *rest)
        return parts

    def _taken(self, names: list[str], size: int | str | None, end: int) -> tuple[str, ...] | None:
        """The axes at one end of `names` (0 or -1) that make up `size`, taken out; None if unknown."""
        if isinstance(size, str) and names and self.symbols.get(size) == names[end]:
            return (names.pop(end),)
        if not isinstance(size, int):
            return None
        taken: list[str] = []
        length, left = 1, list(names)
        while left and (length < size or not taken):
            known = self.sizes.get(left[end])
            if known is None or length * known > size:
                break
            length *= known
            taken.insert(0 if end else len(taken), left.pop(end))
        if length != size:
            return None
        names[:] = left
        return tuple(taken)

    def _learn_symbols(self, value: ir.Value, groups: Groups) -> None:
        shape = value.shape if value.shape is not None and len(value.shape) == len(groups) else ()
        for group, size in zip(groups, shape, strict=False):
            if len(group) == 1 and not isinstance(size, int) and size.value is not None:
                self.symbols.setdefault(size.value, group[0])


@dataclass(frozen=True, eq=False)
class SplitHeads:
    """A value of three axes and the operand of an attention product that is made of it.

    Attributes:
        source: Batch, position, channels.
        heads: How many heads the channels are split into.
        size: Channels of one head.
        scale: The product of the constant factors on the way.
        tracker: What is known of the axes.
    """

    source: ir.Value
    heads: int
    size: int
    scale: float
    tracker: Tracker

    @property
    def groups(self) -> int:
        """How many heads the source has: none is repeated."""
        return self.heads


def find_split(operand: ir.Value, order: tuple[str, ...]) -> SplitHeads | None:
    """Where the operand of a product of each head, with the axes `order`, is split into heads.

    Args:
        operand: Four axes.
        order: Their names: `QUERIES`, which values have too, or `KEYS`.
    """
    chain: list[ir.Node] = []
    scale = 1.0
    value = operand
    for _ in range(_CHAIN_LIMIT):
        if chain and rank_of(value) == 3:
            found = _split_from(value, chain[::-1], order)
            if found is not None:
                heads, size, tracker = found
                return SplitHeads(value, heads, size, scale, tracker)
        step = _step_up(value)
        if step is None:
            return None
        node, value, factor = step
        chain.append(node)
        scale *= factor
    return None


def find_merged(context: ir.Value, tracker: Tracker) -> ir.Value | None:
    """The value of three axes that merges the heads of `context` again, if nothing else reads them.

    Args:
        context: Four axes, as `QUERIES`.
        tracker: What is known of the axes.
    """
    tracker.learn(context, QUERIES)
    value = context
    groups: Groups = [(name,) for name in QUERIES]
    for _ in range(_CHAIN_LIMIT):
        if groups == [("batch",), ("position",), ("head", "channel")]:
            return value
        node = only_reader(value)
        if node is None or not is_op(node, "Transpose", "Reshape", "Identity"):
            return None
        found = tracker.follow(node, groups)
        if found is None:
            return None
        value, groups = node.outputs[0], found
    return None


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads the numbers of `value`, which is no graph output, as its first input.

    A Shape does not read numbers.
    """
    readers = [(node, index) for node, index in value.uses() if not is_op(node, "Shape")]
    if len(readers) != 1 or value.is_graph_output() or readers[0][1] != 0:
        return None
    return readers[0][0] if readers[0][0].graph is value.graph else None


def _split_from(
    source: ir.Value, chain: Sequence[ir.Node], order: tuple[str, ...]
) -> tuple[int, int, Tracker] | None:
    """Heads and their size, if `chain`, from the source down, arranges its axes as `order`."""
    channels = last_dim(source)
    for size in _sizes_of_heads(chain):
        if channels is None or size < 1 or channels % size:
            continue
        tracker = Tracker({"channel": size, "head": channels // size})
        tracker.learn(source, ("batch", "position", "channels"))
        groups: Groups | None = [("batch",), ("position",), ("head", "channel")]
        for node in chain:
            groups = tracker.follow(node, groups) if groups is not None else None
        if groups == [(name,) for name in order]:
            return channels // size, size, tracker
    return None


def _sizes_of_heads(chain: Sequence[ir.Node]) -> Iterator[int]:
    """Lengths of the last axis that a Reshape of the chain gives."""
    for node in chain:
        target = _target(node) if is_op(node, "Reshape") else ()
        if target and isinstance(target[-1], int):
            yield target[-1]


def _step_up(value: ir.Value) -> tuple[ir.Node, ir.Value, float] | None:
    """The node above `value` that only moves or scales, what it reads, and the factor."""
    node = producer(value, "Transpose", "Reshape", "Identity", "Mul", "Div")
    if node is None or not node.inputs:
        return None
    if not is_op(node, "Mul", "Div"):
        return None if node.inputs[0] is None else (node, node.inputs[0], 1.0)
    for index in (1, 0):
        scalar, other = scalar_of(node.inputs[index]), node.inputs[1 - index]
        if scalar is not None and other is not None and (index == 1 or node.op_type == "Mul"):
            stretches = len(constant_shape(node.inputs[index]) or ()) > (rank_of(other) or 0)
            if stretches or not scalar[0]:
                return None
            return node, other, scalar[0] if node.op_type == "Mul" else 1 / scalar[0]
    return None


def _target(node: ir.Node) -> tuple[int | str | None, ...]:
    """The shape that a Reshape gives: numbers, symbols, None where nothing tells."""
    shape, sizes = node.outputs[0].shape, reshape_end(node)
    if shape is None:  # zero means "as in the input"
        return tuple(size or None for size in sizes) if constant_shape(input_of(node, 1)) else ()
    known = [size if isinstance(size, int) else size.value for size in shape]
    if len(sizes) == len(known):
        return tuple(size or other for size, other in zip(sizes, known, strict=True))
    return tuple(known)
