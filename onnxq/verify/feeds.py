"""Inputs that a model was not asked to expect: random ones, of several sizes, and corners."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.errors import UnsupportedModel
from onnxq.verify.roles import Role, roles_of

# Sizes given in turn to the named dimensions of a model: different from each other, so that mixing two up
# shows.
_DISTINCT = (2, 5, 3, 7, 4, 6)
# Sizes tried for all dimensions but the first where small ones do not run, e.g. the sides of an image.
_LARGE = (16, 64, 224)
_EXPRESSION = re.compile(r"\s*\w+(\s*\+\s*\w+)+\s*")


@dataclass(frozen=True)
class FeedSettings:
    """Which feeds to make.

    Attributes:
        seeds: Number of random feeds of each size.
        seed: The first seed.
        corners: Whether to add zeros, huge, tiny and negative values.
        extremes: Whether to add NaN, infinities, negative zeros and numbers at the end of their range: for
            models that must agree in every bit.
    """

    seeds: int = 4
    seed: int = 0
    corners: bool = True
    extremes: bool = False


@dataclass(frozen=True)
class Feed:
    """One set of inputs.

    Attributes:
        label: What to call it.
        arrays: An array for each input, by name.
        ordinary: Whether its outputs are of the usual size; not so for corners such as all zeros.
    """

    label: str
    arrays: Mapping[str, np.ndarray]
    ordinary: bool = True


def sizes_of(model: ir.Model) -> tuple[Mapping[str, int], ...]:
    """Assignments of a size to each open dimension of the inputs, the most telling first.

    Dimensions of one name have one size. A dimension without a name is named after its axis, so that, say,
    two inputs of unknown batch and length agree.
    """
    names = list(dict.fromkeys(name for value in inputs_of(model) for name in _open_dimensions(value)))
    if not names:
        return ({},)
    ones = dict.fromkeys(names, 1)
    distinct = {name: _DISTINCT[index % len(_DISTINCT)] for index, name in enumerate(names)}
    large = [{name: 1 if index == 0 else size for index, name in enumerate(names)} for size in _LARGE]
    return (distinct, ones, *large)


def make_feeds(
    model: ir.Model, sizes: Mapping[str, int], settings: FeedSettings = FeedSettings()
) -> list[Feed]:
    """Feeds for `model` at one assignment of `sizes`; the same every time.

    Integers that index a table stay inside it. What looks like an attention mask is all ones or ends early.

    Raises:
        UnsupportedModel: An input is no tensor, or of unknown rank ("input-kind").
    """
    roles = roles_of(model)
    described = [(value, roles[str(value.name)], _shape(value, sizes)) for value in inputs_of(model)]
    feeds: list[Feed] = []
    size = " ".join(f"{name}={number}" for name, number in sizes.items())
    for label, seed, style in _styles(settings):
        generator = np.random.default_rng([seed, len(feeds)])
        arrays = {
            str(value.name): _array(value, role, shape, style, generator) for value, role, shape in described
        }
        feeds.append(Feed(f"{label} {size}".strip(), arrays, ordinary=style == "normal"))
    return feeds


def inputs_of(model: ir.Model) -> list[ir.Value]:
    """Inputs that a caller has to feed."""
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _styles(settings: FeedSettings) -> Iterator[tuple[str, int, str]]:
    for seed in range(settings.seed, settings.seed + settings.seeds):
        yield f"seed {seed}", seed, "normal"
    corners = ("zeros", "huge", "tiny", "negative") if settings.corners else ()
    extremes = ("special", "largest") if settings.extremes else ()
    for style in (*corners, *extremes):
        yield style, settings.seed, style


def _open_dimensions(value: ir.Value) -> list[str]:
    names: list[str] = []
    for axis, dim in enumerate(value.shape or ()):
        if isinstance(dim, int):
            continue
        name = str(dim.value) if dim.value is not None else f"axis {axis}"
        names += [term.strip() for term in name.split("+")] if _EXPRESSION.fullmatch(name) else [name]
    return [name for name in names if not name.isdigit()]


def _shape(value: ir.Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
        kind = value.type if value.type is not None else "unknown"
        raise UnsupportedModel(
            f"input {value.name!r} of type {kind} cannot be made up",
            hint="Give feeds for it.",
            slug="input-kind",
        )
    shape: list[int] = []
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            shape.append(dim)
            continue
        name = str(dim.value) if dim.value is not None else f"axis {axis}"
        terms = [term.strip() for term in name.split("+")] if _EXPRESSION.fullmatch(name) else [name]
        shape.append(sum(int(term) if term.isdigit() else sizes[term] for term in terms))
    return tuple(shape)


def _array(
    value: ir.Value, role: Role, shape: Sequence[int], style: str, generator: np.random.Generator
) -> np.ndarray:
    dtype = ir.DataType(value.dtype) if value.dtype is not None else ir.DataType.FLOAT
    if dtype == ir.DataType.STRING:
        return np.asarray(generator.choice(["", "a", "word", "Zürich"], size=shape), dtype=object)
    target = dtype.numpy()
    if role.kind == "mask":
        return _mask(shape, style, generator).astype(target)
    if dtype == ir.DataType.BOOL:
        return generator.integers(0, 2, size=shape).astype(target)
    if not dtype.is_floating_point():
        return _integers(role, shape, style, generator).astype(target)
    return _floats(dtype, shape, style, generator)


def _mask(shape: Sequence[int], style: str, generator: np.random.Generator) -> np.ndarray:
    """Ones, but in random feeds all rows past the first end early; no row is empty."""
    mask = np.ones(shape, np.int64)
    if style != "normal" or not shape or shape[-1] < 2:
        return mask
    lengths = generator.integers(1, shape[-1] + 1, size=(*shape[:-1], 1))
    return np.asarray(np.arange(shape[-1]) < lengths, np.int64)


def _integers(role: Role, shape: Sequence[int], style: str, generator: np.random.Generator) -> np.ndarray:
    if role.kind == "shape":
        return np.ones(shape, np.int64)
    bound = role.bound or 2
    if style == "zeros":
        return np.zeros(shape, np.int64)
    if style == "huge":
        return np.full(shape, bound - 1, np.int64)
    return generator.integers(0, bound, size=shape)


def _floats(
    dtype: ir.DataType, shape: Sequence[int], style: str, generator: np.random.Generator
) -> np.ndarray:
    target = dtype.numpy()
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return np.asarray(generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(
            target
        )
    normal = np.asarray(generator.standard_normal(shape))
    narrow = dtype.itemsize < 4
    if style == "zeros":
        return np.zeros(shape, target)
    if style == "huge":  # large enough to saturate, small enough that a square stays finite
        normal = normal * (30.0 if narrow else 1e4)
    elif style == "tiny":
        normal = normal * (1e-3 if narrow else 1e-15)
    elif style == "negative":
        normal = -np.abs(normal) - 0.01
    elif style in ("special", "largest"):
        largest = float(np.finfo(np.float32).max if dtype.itemsize == 4 else 6e4)
        values = (
            [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0]
            if style == "special"
            else [largest, -largest, 1e-40, -0.0]
        )
        normal = np.where(generator.random(shape) < 0.5, generator.choice(values, size=shape), normal)
    with np.errstate(over="ignore"):
        return normal.astype(target)
