"""How each operator carries an axis: which axes of its other operands belong to one axis of one operand.

If every operand of a node is permuted along the axes that belong together, the node computes the same numbers
in another order, and where a contraction or a norm consumes the axis, the same numbers. Axes are counted from
the end (-1 is the last), as broadcasting does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from onnxq.ir import moves
from onnxq.ir.channels import reshape_end
from onnxq.ir.moves import Spot, Spots
from onnxq.ir.walk import attribute, axes_of, constant_shape, input_of, is_op, root_of

_CLIMB_LIMIT = 8
_MOST_AXES = 16


def belonging(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """The axes of all operands of `node` that belong to the axis `at`; a reason if it cannot be carried.

    Args:
        node: Any node.
        at: The axis asked about.
        channels: How long the axis is, at least 2.
    """
    rule, known = _RULES.get(node.op_type), is_op(node, node.op_type)
    known = known or (node.domain == "com.microsoft" and node.op_type in _MICROSOFT)
    # Targets, axes and counts are no data, and neither is a mask or a mean that is given out besides.
    beside = at.index > 0 and node.op_type not in (_MANY_OUTPUTS if at.is_output else _MANY_INPUTS)
    if rule is None or not known or beside:
        return f"{node.op_type} is not known to let a permutation pass"
    return rule(node, at, channels)


def size_at(value: ir.Value | None, axis: int, climb: int = _CLIMB_LIMIT) -> int | None:
    """Length of `value` along `axis`, 1 where it has no such axis; None if nothing tells."""
    if value is None:
        return None
    shape = value.shape if value.shape is not None else constant_shape(value)
    if shape is not None:
        size = 1 if len(shape) < -axis else shape[axis]
        if isinstance(size, int):
            return size
    node = value.producer()
    if node is None or climb <= 0 or root_of(value) is not None:
        return None
    return _computed_size(node, value, axis, climb - 1)


def _computed_size(node: ir.Node, value: ir.Value, axis: int, climb: int) -> int | None:
    if is_op(node, "Resize"):
        return None
    if is_op(node, "Reshape"):
        sizes = reshape_end(node)
        stated = sizes[axis] or None if len(sizes) >= -axis else None
        return stated or _counted_size(node, axis)
    if node.op_type in _REDUCTIONS and attribute(node, "keepdims", 1) and axis in (_reduced(node) or ()):
        return 1
    spots = belonging(node, Spot(True, value.index() or 0, axis), 2)
    if isinstance(spots, str):
        return None
    ones, given = 0, [(input_of(node, spot.index), spot.axis) for spot in spots if not spot.is_output]
    # Constants tell at once, computed values only after a climb.
    for operand, place in sorted(given, key=lambda pair: root_of(pair[0]) is None):
        size = size_at(operand, place, climb)
        if size is not None and size > 1:
            return size
        ones += size == 1
    return 1 if given and ones == len(given) else None


def _counted_size(node: ir.Node, axis: int) -> int | None:
    """Length that a Reshape gives an axis, where all others are known: they hold the same elements."""
    values = (node.inputs[0], node.outputs[0])
    before, after = (value.shape if value is not None else None for value in values)
    if before is None or after is None or len(after) < -axis:
        return None
    free = [size.value for size in before if not isinstance(size, int)]
    others = [size for place, size in enumerate(after) if place != len(after) + axis]
    for size in others:
        if not isinstance(size, int):
            if size.value is None or size.value not in free:
                return None
            free.remove(size.value)
    count = math.prod(size for size in before if isinstance(size, int))
    rest = math.prod(size for size in others if isinstance(size, int))
    return count // rest if not free and rest and count % rest == 0 else None


def _elementwise(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Operands that are broadcast against each other."""
    given = tuple(Spot(False, index, at.axis, may_stretch=True) for index in range(len(node.inputs)))
    return (*given, Spot(True, 0, at.axis))


def _alone(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """A function of each element, or of rows along any axis: what is in its place before is so behind."""
    return (Spot(False, 0, at.axis), Spot(True, 0, at.axis))


def _ends(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """The numbers of the input do not matter (a Shape), or those of the output are all the same."""
    matters = at.is_output is not is_op(node, "ConstantOfShape")
    return f"{node.op_type} is not known to let a permutation pass" if matters else ()


def _reduce(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    axes = _reduced(node)
    if axes is None or (at.is_output and attribute(node, "keepdims", 1) and at.axis in axes):
        return "the axes of the reduction are not known"
    if attribute(node, "keepdims", 1):
        return () if at.axis in axes else _alone(node, at, channels)
    if not at.is_output:
        gone = sum(axis > at.axis for axis in axes)
        return () if at.axis in axes else (at, Spot(True, 0, at.axis + gone))
    before = next(
        a
        for a in range(at.axis, -_MOST_AXES * 2, -1)
        if a not in axes and a + sum(x > a for x in axes) == at.axis
    )
    return (at, Spot(False, 0, before))


def _reduced(node: ir.Node) -> tuple[int, ...] | None:
    """The axes that a reduction takes away, from the end."""
    axes, rank = axes_of(node), moves.rank_at(node.inputs[0])
    if not axes:
        computed = axes is None and ("axes" in node.attributes or input_of(node, 1) is not None)
        unknown = computed or attribute(node, "noop_with_empty_axes", 0)
        return None if unknown else tuple(range(-_MOST_AXES, 0))
    if any(axis >= 0 for axis in axes) and rank is None:
        return None
    return tuple(axis if axis < 0 else axis - (rank or 0) for axis in axes)


def _norm(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    first, rank = attribute(node, "axis", -1), moves.rank_at(node.inputs[0])
    if at.axis != -1 and first >= 0 and rank is None:
        return "the axes of the norm are not known"
    first = first if first < 0 or rank is None else first - rank
    spots = _alone(node, at, channels)
    if at.axis < -1 and at.axis < first:
        return spots if len(node.outputs) == 1 else "the norm's statistics are read too"
    return (*spots, *(Spot(False, index, at.axis, may_stretch=True) for index in (1, 2)))


def _skip_norm(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    if at.axis != -1:
        return f"{node.op_type} normalises another axis"
    vectors = tuple(Spot(False, index, -1, may_stretch=True) for index in range(2, len(node.inputs)))
    return (Spot(False, 0, -1), Spot(False, 1, -1), *vectors, Spot(True, 0, -1), Spot(True, 3, -1))


def _batch_norm(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    rank = moves.rank_at(node.inputs[0])
    if rank is None or len(node.outputs) > 1:
        return "BatchNormalization of an unknown shape"
    vectors = tuple(Spot(False, index, -1) for index in range(1, 5)) if at.axis == 1 - rank else ()
    return (*_alone(node, at, channels), *vectors)


def _matmul(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    rank = moves.rank_at(input_of(node, 1))
    if rank is None or rank < 2:
        return "the right operand of the product is not known to be a matrix"
    return _product(at, (-1, -2), (-2, -1))


def _gemm(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    left = (-2, -1) if attribute(node, "transA", 0) else (-1, -2)
    right = (-1, -2) if attribute(node, "transB", 0) else (-2, -1)
    if not at.is_output and at.index == 2:
        at = Spot(True, 0, at.axis)
    spots = _product(at, left, right)
    shift = tuple(Spot(False, 2, spot.axis, may_stretch=True) for spot in spots if spot.is_output)
    return (*spots, *shift) if input_of(node, 2) is not None else spots


def _product(at: Spot, left: tuple[int, int], right: tuple[int, int]) -> Spots:
    """A product that contracts the first axis of each pair and keeps the second; or an axis of a batch."""
    inner = (Spot(False, 0, left[0]), Spot(False, 1, right[0]))
    rows = (Spot(False, 0, left[1]), Spot(True, 0, -2))
    columns = (Spot(False, 1, right[1]), Spot(True, 0, -1))
    for together in (inner, rows, columns):
        if at in together:
            return together
    axis = at.axis
    return (
        Spot(False, 0, axis, may_stretch=True),
        Spot(False, 1, axis, may_stretch=True),
        Spot(True, 0, axis),
    )


def _convolution(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    weight = constant_shape(input_of(node, 1))
    if weight is None or attribute(node, "group", 1) != 1:
        return f"{node.op_type} has groups or no constant weight"
    writes, reads = (-len(weight), 1 - len(weight))
    if node.op_type == "ConvTranspose":
        writes, reads = reads, writes
    if at.axis != 1 - len(weight):
        return f"{node.op_type} runs along the channels"
    if not at.is_output:
        return (at, Spot(False, 1, reads))
    bias = (Spot(False, 2, -1),) if input_of(node, 2) is not None else ()
    return (at, Spot(False, 1, writes), *bias)


_UNARY = (
    "Abs Cast Ceil Celu Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN "
    "LeakyRelu Log LogSoftmax Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Softmax Softplus "
    "Softsign Sqrt Swish Tanh ThresholdedRelu LpNormalization QuickGelu FastGelu"
)
_BROADCAST = (
    "Add And Clip Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub "
    "Sum Where Xor BiasGelu"
)
_REDUCED = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
_REDUCTIONS = tuple(f"Reduce{kind}" for kind in _REDUCED.split())
_NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_SKIP_NORMS = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_MANY_INPUTS = frozenset(
    [*_BROADCAST.split(), *_NORMS, *_SKIP_NORMS, "MatMul", "Gemm", "Concat", "BatchNormalization"]
)
_MANY_OUTPUTS = frozenset(["Split", *_SKIP_NORMS])
_MICROSOFT = frozenset(["BiasGelu", "FastGelu", "Gelu", "QuickGelu", *_SKIP_NORMS])

_RULES: dict[str, Callable[[ir.Node, Spot, int], Spots | str]] = {
    **dict.fromkeys(_UNARY.split(), _alone),
    **dict.fromkeys(_BROADCAST.split(), _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(_SKIP_NORMS, _skip_norm),
    **dict.fromkeys(("Shape", "Size", "ConstantOfShape"), _ends),
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(("Concat", "Split"), moves.along),
    "BatchNormalization": _batch_norm,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": moves.gather,
    "Transpose": moves.transpose,
    "Reshape": moves.reshape,
    "Flatten": moves.flatten,
    "Unsqueeze": moves.unsqueeze,
    "Squeeze": moves.squeeze,
    "Slice": moves.slicing,
    "Expand": moves.expand,
    "Tile": moves.tile,
    "Resize": moves.resize,
}
