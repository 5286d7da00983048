"""What a node makes of constants, computed with numpy: only what has the same bits on any machine.

That is moving elements, integer arithmetic, comparisons, and the IEEE operations on float and double.
Transcendental functions, sums of floats and products of matrices are not here: their last bits differ between
runtimes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.ir.walk import axes_of, input_of
from onnxq.passes.clean.forward import integer_of, integers_of

Inputs = Sequence[np.ndarray | None]
Rule = Callable[[ir.Node, list[np.ndarray]], np.ndarray | None]


def evaluate(node: ir.Node, inputs: Inputs) -> np.ndarray | None:
    """The output of `node` for these inputs (None for one left out); None if it is not certain."""
    rule = _RULES.get(node.op_type)
    given = list(inputs)
    while given and given[-1] is None:
        given.pop()
    arrays = [array for array in given if array is not None]
    if rule is None or len(arrays) != len(given) or any(array.dtype.kind in "SU" for array in arrays):
        return None
    try:
        with np.errstate(all="ignore"):
            result = rule(node, arrays)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None  # a node that the runtime would refuse too
    return None if result is None else np.asarray(result)


def bytes_of(node: ir.Node, inputs: Inputs) -> int:
    """Size of what `evaluate` would give, in bytes, without computing it; never too small."""
    arrays = [array for array in inputs if array is not None]
    try:
        return _elements(node, arrays) * _width(node, arrays)
    except (ValueError, IndexError, ZeroDivisionError, OverflowError):
        return 0  # a node that `evaluate` refuses


def can_evaluate(node: ir.Node) -> bool:
    """Whether there is a rule for this operator."""
    return node.domain == "" and node.op_type in _RULES and len(node.outputs) == 1


def _elements(node: ir.Node, arrays: list[np.ndarray]) -> int:
    if node.op_type == "ConstantOfShape":
        return math.prod(int(size) for size in arrays[0])
    if node.op_type == "Expand":
        return _broadcast([arrays[0].shape, tuple(int(size) for size in arrays[1])])
    if node.op_type == "Tile":
        return arrays[0].size * math.prod(int(times) for times in arrays[1])
    if node.op_type == "Range":
        start, limit, delta = (int(array) for array in arrays)
        return max(0, -((start - limit) // delta))
    if node.op_type == "Gather":
        return int(
            arrays[1].size * arrays[0].size // max(1, arrays[0].shape[integer_of(node, "axis", 0) or 0])
        )
    if node.op_type in _ELEMENTWISE or node.op_type == "Where":
        return _broadcast([array.shape for array in arrays])
    return sum(array.size for array in arrays) if node.op_type == "Concat" else arrays[0].size


def _width(node: ir.Node, arrays: list[np.ndarray]) -> int:
    """Bytes of one element of the result."""
    if node.op_type == "Cast":
        return int(ir.DataType(integer_of(node, "to", 1) or 1).numpy().itemsize)
    if node.op_type in ("Size", "ConstantOfShape") or arrays[0].dtype.kind == "O":
        return 8
    return int(arrays[1 if node.op_type == "Where" else 0].dtype.itemsize)


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> int:
    """Elements after broadcasting, counted without numpy's limits."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return math.prod(max(sizes) if min(sizes) > 0 else 0 for sizes in zip(*padded, strict=True))


def _attribute(node: ir.Node, name: str, default: int) -> int:
    found = integer_of(node, name, default)
    if found is None:
        raise ValueError(f"{name} is a parameter of the function")
    return found


def _reshape(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    data, shape = arrays
    sizes = [int(size) for size in shape]
    if not _attribute(node, "allowzero", 0):
        sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return data.reshape(sizes)


def _flatten(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    shape = arrays[0].shape
    axis = _attribute(node, "axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return arrays[0].reshape(math.prod(shape[:axis]), math.prod(shape[axis:]))


def _transpose(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    if "perm" not in node.attributes:
        return arrays[0].transpose()
    perm = integers_of(node, "perm")
    return None if perm is None else arrays[0].transpose(perm)


def _squeeze(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    axes = axes_of(node)
    if axes is None and ("axes" in node.attributes or input_of(node, 1) is not None):
        return None
    return np.squeeze(arrays[0], axes)


def _unsqueeze(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    axes = axes_of(node)
    return None if axes is None else np.expand_dims(arrays[0], axes)


def _concat(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    return np.concatenate(arrays, axis=_attribute(node, "axis", 0))


def _gather(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    return np.take(arrays[0], arrays[1], axis=_attribute(node, "axis", 0))


def _slice(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    data = arrays[0]
    if "starts" in node.attributes:
        names = ("starts", "ends", "axes")
        parts = [list(integers_of(node, name) or ()) for name in names]
    else:
        parts = [[int(entry) for entry in array] for array in arrays[1:]]
    starts, ends = parts[:2]
    axes = parts[2] if len(parts) > 2 and parts[2] else list(range(len(starts)))
    steps = parts[3] if len(parts) > 3 else [1] * len(starts)
    cuts = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cuts[axis] = _cut(start, end, step, data.shape[axis])
    return data[tuple(cuts)]


def _cut(start: int, end: int, step: int, size: int) -> slice:
    """One axis of an ONNX Slice: bounds count from the end if negative, and then stop at the edges."""
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    last = min(max(end, -1), size - 1)
    return slice(min(max(start, 0), size - 1), None if last < 0 else last, step)


def _cast(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    """Casts that every runtime agrees on: exact ones, and double or integers rounded to float."""
    data = arrays[0]
    target = ir.DataType(_attribute(node, "to", 0)).numpy()
    cast = data.astype(target)
    plain = data.dtype.kind in "biuf" and target.kind in "biuf" and target.itemsize != 2
    if plain and (target.kind in "fb" or bool(np.all(cast.astype(data.dtype) == np.trunc(data)))):
        return cast
    back = cast.astype(data.dtype)
    return cast if bool(np.all(back == data)) else None


def _constant_of_shape(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    given = node.attributes.get("value")
    if given is not None and given.is_ref():
        return None
    fill = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy().reshape(-1)
    return np.broadcast_to(fill, [int(size) for size in arrays[0]]).copy()


def _expand(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    shape = np.broadcast_shapes(arrays[0].shape, tuple(int(size) for size in arrays[1]))
    return np.broadcast_to(arrays[0], shape).copy()


def _range(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    start, limit, delta = arrays
    if start.dtype.kind != "i":
        return None
    return np.arange(int(start), int(limit), int(delta), dtype=start.dtype)


def _divide(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Towards zero for integers."""
    if one.dtype.kind == "f":
        return np.asarray(one / other)
    if bool(np.any(other == 0)):
        return None
    floor = np.floor_divide(one, other)
    off = (floor * other != one) & ((one < 0) != (other < 0))
    return np.asarray(floor + off.astype(one.dtype))


def _remainder(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    if arrays[0].dtype.kind not in "iu" or bool(np.any(arrays[1] == 0)):
        return None
    compute = np.fmod if _attribute(node, "fmod", 0) else np.mod
    return np.asarray(compute(arrays[0], arrays[1]))


def _power(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    """Powers of floats that round the same way even if a library is off by a tenth of the last bit."""
    base, exponent = arrays
    if base.dtype != np.float32 or exponent.dtype.kind not in "iuf":
        return None
    exact = np.power(base.astype(np.float64), exponent.astype(np.float64))
    rounded = exact.astype(np.float32)
    certain = np.abs(exact - rounded) <= 0.4 * np.spacing(np.abs(rounded))
    return rounded if bool(np.all(np.isfinite(rounded) & certain)) else None


def _arithmetic(compute: Callable[..., np.ndarray | None], kinds: str = "iuf") -> Rule:
    """An elementwise rule for these kinds of numbers; it holds still where a float result is not finite."""

    def rule(node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
        dtype = arrays[0].dtype
        if dtype.kind not in kinds or dtype.itemsize == 2 or dtype.name == "bfloat16":
            return None
        result = compute(*arrays)
        if result is None or (result.dtype.kind == "f" and not bool(np.all(np.isfinite(result)))):
            return None
        return result

    return rule


def _fold(compute: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Min and Max of any number of integer arrays."""

    def variadic(*arrays: np.ndarray) -> np.ndarray:
        result = arrays[0]
        for array in arrays[1:]:
            result = compute(result, array)
        return result

    return variadic


_ELEMENTWISE: dict[str, Rule] = {
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(_divide),
    "Mod": _remainder,
    "Neg": _arithmetic(np.negative, "if"),
    "Pow": _power,
    "Abs": _arithmetic(np.abs),
    "Floor": _arithmetic(np.floor, "f"),
    "Ceil": _arithmetic(np.ceil, "f"),
    "Sqrt": _arithmetic(np.sqrt, "f"),
    "Min": _arithmetic(_fold(np.minimum), "iu"),
    "Max": _arithmetic(_fold(np.maximum), "iu"),
    "Equal": _arithmetic(np.equal, "biuf"),
    "Greater": _arithmetic(np.greater),
    "GreaterOrEqual": _arithmetic(np.greater_equal),
    "Less": _arithmetic(np.less),
    "LessOrEqual": _arithmetic(np.less_equal),
    "And": _arithmetic(np.logical_and, "b"),
    "Or": _arithmetic(np.logical_or, "b"),
    "Xor": _arithmetic(np.logical_xor, "b"),
    "Not": _arithmetic(np.logical_not, "b"),
}
_RULES: dict[str, Rule] = {
    **_ELEMENTWISE,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Tile": lambda node, arrays: np.tile(arrays[0], [int(times) for times in arrays[1]]),
    "Where": lambda node, arrays: np.where(*arrays),
    "Size": lambda node, arrays: np.array(arrays[0].size, np.int64),
}
