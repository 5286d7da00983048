"""Passes with one thing done wrong: what the proofs of exactness must catch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Edit, Pass
from onnxq.ir.walk import constant_of

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Slip:
    """A mistake in one call of the editor.

    Attributes:
        name: What was done wrong.
        calls: Methods of the editor in which it can happen.
        change: The arguments that are used instead; None where the call is left out.
        fits: Whether it can happen in a call with these arguments.
    """

    name: str
    calls: tuple[str, ...]
    change: Callable[[Arguments], Arguments] | None
    fits: Callable[[Arguments], bool] = lambda arguments: True


@dataclass
class Slipping:
    """An editor that makes one mistake, in the call of that number among those where it can happen.

    Attributes:
        edit: The editor that does the work.
        slip: The mistake; None to make none.
        number: When.
        chances: How many calls there were of each kind of mistake.
    """

    edit: Edit
    slip: Slip | None
    number: int
    chances: dict[str, int] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.edit, name)
        if name not in _CALLS:
            return method
        return lambda *arguments, **named: self._call(name, method, arguments, named)

    def _call(
        self, name: str, method: Callable[..., Any], arguments: Arguments, named: Mapping[str, Any]
    ) -> Any:
        for slip in SLIPS:
            if name not in slip.calls or not slip.fits(arguments):
                continue
            count = self.chances.get(slip.name, 0)
            self.chances[slip.name] = count + 1
            if slip is self.slip and count == self.number:
                if slip.change is None:
                    return None
                return method(*slip.change(arguments), **named)
        return method(*arguments, **named)


class Mutant(Pass):
    """A pass that works with a slipping editor, and is like another pass in all else."""

    def __init__(self, original: Pass, slip: Slip | None = None, number: int = 0) -> None:
        self.original, self.slip, self.number = original, slip, number
        self.name, self.contract, self.needs = original.name, original.contract, original.needs  # type: ignore[misc]
        self.raises_opset = original.raises_opset  # type: ignore[misc]
        self.chances: dict[str, int] = {}

    def match(self, node: Any, context: Context) -> Any:
        return self.original.match(node, context)

    def rewrite(self, found: Any, edit: Edit) -> None:
        self.original.rewrite(found, Slipping(edit, self.slip, self.number, self.chances))  # type: ignore[arg-type]


def _array_at(arguments: Arguments) -> int:
    return next(index for index, each in enumerate(arguments) if isinstance(each, np.ndarray | np.generic))


def _with_array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arguments], Arguments]:
    def changed(arguments: Arguments) -> Arguments:
        at = _array_at(arguments)
        array = np.asarray(arguments[at])
        return (*arguments[:at], change(array).astype(array.dtype), *arguments[at + 1 :])

    return changed


def _largest_off(array: np.ndarray) -> np.ndarray:
    """The largest element a tenth too large."""
    changed = array.copy()
    place = np.unravel_index(np.abs(array.astype(np.float64)).argmax(), array.shape)
    changed[place] = changed[place] * 1.1 if array.dtype.kind == "f" else changed[place] + 1
    return changed


def _is_varied(arguments: Arguments) -> bool:
    array = np.asarray(arguments[_array_at(arguments)])
    return array.dtype.kind == "f" and array.ndim > 0 and bool((array != array[::-1]).any())


def _is_nonzero(arguments: Arguments) -> bool:
    array = np.asarray(arguments[_array_at(arguments)])
    return array.dtype.kind == "f" and bool(array.any())


def _is_another(arguments: Arguments) -> bool:
    """Whether the constant changes at all."""
    node, index, array = arguments[:3]
    old = constant_of(node.inputs[index])
    return old is None or old.shape != np.shape(array) or not np.array_equal(old, array)


def _has_step(arguments: Arguments) -> bool:
    """Whether the new value is computed from another one."""
    return arguments[0] is not arguments[1] and _before(arguments[1]) is not None


def _with_step_left_out(arguments: Arguments) -> Arguments:
    return (arguments[0], _before(arguments[1]))


def _before(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    computed = [] if node is None else [each for each in node.inputs if each is not None and each.producer()]
    return computed[0] if computed else None


CONSTANTS = ("constant", "replace_constant")
SLIPS = (
    Slip("a constant has the wrong sign", CONSTANTS, _with_array(np.negative), _is_nonzero),
    Slip("an element is off", CONSTANTS, _with_array(_largest_off), _is_nonzero),
    Slip("channels are mixed up", CONSTANTS, _with_array(lambda array: array[::-1]), _is_varied),
    Slip("a constant is left as it was", ("replace_constant",), None, _is_another),
    Slip("a reader is left out", ("rewire",), None),
    Slip("the last step is left out", ("replace", "take_over"), _with_step_left_out, _has_step),
    Slip("an attribute is left as it was", ("set_attribute",), None),
)
_CALLS = frozenset(call for slip in SLIPS for call in slip.calls)
