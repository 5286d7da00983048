"""What a model wants to be fed, and whether an array is that.

An array is converted where no value changes its meaning: integers and booleans of any width whose values fit,
integers to floats that hold them exactly, floats to wider or narrower floats that hold their range.
Everything else is an error that names the input, what it wants and what it was given.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.errors import CalibrationError

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: Its name.
        dtype: Its element type; object for strings.
        shape: A size, a symbol or None (unknown) for each axis; None if even their number is unknown.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        axes = (
            "..." if self.shape is None else ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        )
        return f"{self.name}: {'string' if self.dtype == object else self.dtype}[{axes}]"

    @property
    def rank(self) -> int | None:
        """Number of axes, if known."""
        return None if self.shape is None else len(self.shape)


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """The inputs that a run must be given: graph inputs without a default value.

    Raises:
        CalibrationError: An input is no tensor, or its element type is not declared.
    """
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if not isinstance(value.type, ir.TensorType):
            raise CalibrationError(
                f"input {value.name!r} is not a tensor ({value.type})",
                hint="calibration feeds arrays; models that take sequences or optionals are left alone",
                slug="input-kind",
            )
        shape = None if value.shape is None else tuple(_dim(dim) for dim in value.shape)
        dtype = object if value.type.dtype == ir.DataType.STRING else value.type.dtype.numpy()
        specs.append(InputSpec(value.name or "", np.dtype(dtype), shape))
    return tuple(specs)


def fixed_batch(specs: Iterable[InputSpec]) -> int | None:
    """The batch size that the shapes fix, if they do: the first size declared for a first axis."""
    for spec in specs:
        if spec.shape and isinstance(spec.shape[0], int):
            return spec.shape[0]
    return None


def require_names(given: Mapping[str, Array], specs: Sequence[InputSpec], origin: str) -> None:
    """Check that there is an array for every input; arrays for other names are left unused.

    Raises:
        CalibrationError: Some are missing.
    """
    missing = [spec for spec in specs if spec.name not in given]
    if not missing:
        return
    spare = [name for name in given if all(name != spec.name for spec in specs)]
    hints = []
    for spec in missing:
        close = difflib.get_close_matches(spec.name, spare, n=1, cutoff=0.5)
        hints += [f"is {close[0]!r} meant for {spec.name!r}?"] if close else []
    listed = ", ".join(describe(name, array) for name, array in given.items()) or "nothing"
    raise CalibrationError(
        f"{origin}: no data for {'; '.join(map(str, missing))}. Given: {listed}",
        hint="; ".join(hints) or f"the model's inputs are {', '.join(map(str, specs))}",
        slug="missing-input",
    )


def describe(name: str, array: Array) -> str:
    """Name, element type and shape, as messages spell them."""
    return f"{name}: {array.dtype}[{', '.join(map(str, array.shape))}]"


def fit(array: npt.ArrayLike, spec: InputSpec, where: str) -> Array:
    """`array` as the model wants it.

    Args:
        array: What was given for the input, batch axis included.
        spec: What is wanted.
        where: Origin and sample, for messages.

    Raises:
        CalibrationError: Wrong element type, shape, or elements that are not finite.
    """
    given = np.asarray(array)
    fitted = _converted(given, spec, where)
    shape = spec.shape
    if shape is not None and (
        len(shape) != given.ndim
        or any(isinstance(dim, int) and dim != size for dim, size in zip(shape, given.shape, strict=True))
    ):
        raise CalibrationError(
            f"{where}: {spec} was given {describe(spec.name, given)}",
            hint="the first axis of calibration arrays counts samples; the others are the model's own",
            slug="wrong-shape",
        )
    _require_finite(fitted, spec, where)
    return fitted


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether an element type is one of floats, numpy's own or one that ONNX adds."""
    return dtype.kind == "f" or dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def _require_finite(array: Array, spec: InputSpec, where: str) -> None:
    if not is_float(array.dtype) or np.isfinite(array).all():
        return
    first = np.argwhere(~np.isfinite(array))[0]
    row = f", row {first[0]}" if array.ndim and len(array) > 1 else ""
    raise CalibrationError(
        f"{where}{row}: input {spec.name!r} holds {array[tuple(first)]}",
        hint="drop or repair the sample; a range cannot be learnt from it",
        slug="non-finite-input",
    )


def check_symbols(feeds: Mapping[str, Array], specs: Sequence[InputSpec], where: str) -> None:
    """Check that axes that the model calls by one name have one size within one run.

    Raises:
        CalibrationError: Two arrays disagree.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        for dim, size in zip(spec.shape or (), feeds[spec.name].shape, strict=False):
            if not isinstance(dim, str):
                continue
            known, by = sizes.setdefault(dim, (size, spec.name))
            if known != size:
                raise CalibrationError(
                    f"{where}: axis {dim!r} is {known} in {by!r} and {size} in {spec.name!r}",
                    hint=f"the model's inputs are {', '.join(map(str, specs))}",
                    slug="shapes-disagree",
                )


def _converted(array: Array, spec: InputSpec, where: str) -> Array:
    if spec.dtype == object:
        fitted = array.astype(object) if array.dtype.kind in "UO" else None
    elif array.dtype == spec.dtype:
        fitted = array
    elif array.dtype.kind in "biu" and spec.dtype.kind in "biu":
        fitted = array.astype(spec.dtype)
        fitted = fitted if np.array_equal(fitted, array) else None
    elif is_float(array.dtype) and is_float(spec.dtype):
        with np.errstate(over="ignore"):
            fitted = array.astype(spec.dtype)
        fitted = fitted if np.array_equal(np.isfinite(fitted), np.isfinite(array)) else None
    else:
        fitted = array.astype(spec.dtype) if np.can_cast(array.dtype, spec.dtype, "safe") else None
    if fitted is None:
        raise CalibrationError(
            f"{where}: {spec} was given {describe(spec.name, array)}, which does not convert without loss",
            hint=f"store the array as {'text' if spec.dtype == object else spec.dtype}",
            slug="wrong-dtype",
        )
    return fitted


def _dim(dim: int | ir.SymbolicDim) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value
