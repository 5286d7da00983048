"""Inputs to time a model with: random, valid for transformers as usually exported, the same for a seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.errors import UnsupportedModel, UsageProblem
from onnxq.runtime.native import Port
from onnxq.runtime.tensors import dtype_of

Shapes = Mapping[str, Sequence[int]]

_FIRST_AXIS, _SEQUENCE, _OTHER = 1, 128, 16


def ports_of(model: ir.Model) -> tuple[Port, ...]:
    """The inputs of a model as a session would show them, those that have a default left out."""
    return tuple(
        _port_of(value) for value in model.graph.inputs if value.name not in model.graph.initializers
    )


def feeds_for(inputs: Sequence[Port], shapes: Shapes | None = None, seed: int = 0) -> dict[str, Any]:
    """An array for each input.

    Integers are 0 or 1, which every vocabulary has; masks are ones, so that nothing is skipped; positions
    count up; token types are 0; floats are standard normal.

    Args:
        inputs: Ports of a session, or `ports_of` a model.
        shapes: Shapes by input name, and sizes (as shapes of one number) by the name of a dimension. What
            one of them fixes is fixed in the other inputs too. What is still unknown becomes 1 on the first
            axis and for a batch, 128 for a sequence, 0 for a past, else 16.
        seed: Of the random numbers.

    Raises:
        UsageProblem: A shape names no input and no dimension ("unknown-input"), has another rank or other
            fixed dimensions than the input, or contradicts the size of a dimension ("bad-shape").
    """
    sizes = shapes_for(inputs, shapes or {})
    rng = np.random.default_rng(seed)
    return {port.name: _array_for(port, sizes[port.name], rng) for port in inputs}


def shapes_for(inputs: Sequence[Port], told: Shapes) -> dict[str, tuple[int, ...]]:
    """The shape of each input where some are told; arguments and errors as `feeds_for`."""
    known = {port.name: port for port in inputs}
    symbols: dict[str, int] = {}
    dimensions: set[str] = set()
    for name, shape in told.items():
        for symbol, size in _fixed_by(name, shape, known).items():
            dimensions |= set() if name in known else {symbol}
            # Inputs may differ, since exporters give one symbol to what differs; a dimension may not.
            if symbols.setdefault(symbol, size) != size and symbol in dimensions:
                raise UsageProblem(
                    f"{symbol} is {symbols[symbol]} and, by {name}={_spell(shape)}, {size}",
                    hint="Leave one of the two out: whatever shares a dimension follows.",
                    slug="bad-shape",
                )
    return {
        port.name: tuple(told[port.name]) if port.name in told else _shape_of(port, symbols)
        for port in inputs
    }


def declared(port: Port) -> str:
    """An input and the shape that the model gives it, e.g. ``"input_ids batch x sequence"``."""
    return f"{port.name} {_spell(port.shape, ' x ') or 'a single number'}"


def _fixed_by(name: str, shape: Sequence[int], known: Mapping[str, Port]) -> dict[str, int]:
    """The sizes that a shape told for an input, or for a dimension, gives to symbols."""
    if name in known:
        return _symbols_fixed_by(known[name], shape)
    dimensions = {axis for port in known.values() for axis in port.shape if isinstance(axis, str)}
    # "batch" is what people say to batch_size, and "sequence" to sequence_length.
    alike = {name} & dimensions or {axis for axis in dimensions if axis.startswith(f"{name}_")}
    if len(alike) == 1 and len(shape) == 1:
        return {alike.pop(): shape[0]}
    if len(alike) == 1:
        raise UsageProblem(
            f"{alike.pop()!r} is a dimension, which {_spell(shape)} does not fit",
            hint=f"It has one size: {name}={shape[0]}",
            slug="bad-shape",
        )
    inputs = _listed(known.values())
    told = f"; dimensions: {', '.join(sorted(dimensions))}" if dimensions else ""
    raise UsageProblem(
        f"no input named {name!r}, nor a dimension", hint=f"inputs: {inputs}{told}", slug="unknown-input"
    )


def _listed(ports: Iterable[Port]) -> str:
    """Inputs and their shapes; many of one shape, such as a cache, are told once."""
    alike: dict[object, list[Port]] = {}
    for port in ports:
        alike.setdefault(port.shape if len(port.shape) > 2 else port.name, []).append(port)
    return ", ".join(
        declared(first) + (f" (and {len(others)} others like it)" if others else "")
        for first, *others in alike.values()
    )


def _symbols_fixed_by(port: Port, shape: Sequence[int]) -> dict[str, int]:
    example = "x".join(str(axis if isinstance(axis, int) else _size_of(axis or "", index, {}) or 1)
                       for index, axis in enumerate(port.shape))  # fmt: skip
    refused = f"input {port.name!r} is declared {_spell(port.shape, ' x ') or 'a single number'}"
    if len(shape) != len(port.shape):
        raise UsageProblem(
            f"{refused}, which {_spell(shape)} does not fit: {len(shape)} sizes for {len(port.shape)} axes",
            hint=f"e.g. {port.name}={example}" if port.shape else "It needs no shape.",
            slug="bad-shape",
        )
    for index, (axis, size) in enumerate(zip(port.shape, shape, strict=True)):
        if isinstance(axis, int) and axis != size:
            raise UsageProblem(
                f"{refused}, which {_spell(shape)} does not fit: axis {index} is always {axis}",
                hint=f"e.g. {port.name}={example}; other sizes need an export with a dynamic axis {index}",
                slug="bad-shape",
            )
    return {axis: size for axis, size in zip(port.shape, shape, strict=True) if isinstance(axis, str)}


def _spell(shape: Sequence[int | str | None], between: str = "x") -> str:
    return between.join("?" if axis is None else str(axis) for axis in shape)


def _port_of(value: ir.Value) -> Port:
    name = str(value.name)
    if not isinstance(value.type, ir.TensorType):
        raise UnsupportedModel(
            f"input {name!r} is no tensor, and nothing is known to feed it with",
            hint="Cut the model so that its inputs are tensors.",
            slug="odd-input",
        )
    kind = f"tensor({value.type.dtype.name.lower()})"
    axes = value.shape or ()
    shape = tuple(axis if isinstance(axis, int) else axis.value for axis in axes)
    return Port(name, dtype_of(kind), shape, kind)


def _shape_of(port: Port, symbols: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        axis if isinstance(axis, int) else _size_of(axis or "", index, symbols)
        for index, axis in enumerate(port.shape)
    )


def _size_of(symbol: str, index: int, symbols: Mapping[str, int]) -> int:
    """The size of an axis by its symbol, which may be a sum such as "past_sequence_length + 1"."""
    if symbol in symbols:
        return symbols[symbol]
    terms = [term.strip() for term in symbol.split("+")]
    if len(terms) > 1 and all(terms):
        return sum(int(term) if term.isdigit() else _size_of(term, index, symbols) for term in terms)
    words = set(re.split(r"[^a-z]+", symbol.lower()))
    if words & {"past", "cache"}:
        return 0
    if words & {"batch", "n"} or (index == 0 and not words & {"seq", "sequence", "length"}):
        return _FIRST_AXIS
    return _SEQUENCE if words & {"seq", "sequence", "length", "len", "s", "tokens"} else _OTHER


def _array_for(port: Port, shape: Sequence[int], rng: np.random.Generator) -> Any:
    name, kind = port.name.lower(), port.dtype.kind
    if kind == "O":
        return np.full(shape, "word", dtype=object)
    if "mask" in name or kind == "b":
        return np.ones(shape, port.dtype)
    if kind not in "iu":
        return rng.standard_normal(shape, np.float32).astype(port.dtype)
    if "type" in name or "segment" in name:
        return np.zeros(shape, port.dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1], dtype=port.dtype), shape).copy()
    return rng.integers(0, 2, shape).astype(port.dtype)
