"""Inputs to time a model with: random, valid for transformers as usually exported, the same for a seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxq.errors import UsageProblem
from onnxq.runtime.session import Port

Shapes = Mapping[str, Sequence[int]]

_FIRST_AXIS, _SEQUENCE, _OTHER = 1, 128, 16


def feeds_for(inputs: Sequence[Port], shapes: Shapes | None = None, seed: int = 0) -> dict[str, Any]:
    """An array for each input.

    Integers are 0 or 1, which every vocabulary has; masks are ones, so that nothing is skipped; positions
    count up; token types are 0; floats are standard normal.

    Args:
        inputs: Ports of a session.
        shapes: Shapes by input name. A symbol that one of them fixes is fixed in the other inputs too. What
            is still unknown becomes 1 on the first axis and for a batch, 128 for a sequence, 0 for a past,
            else 16.
        seed: Of the random numbers.

    Raises:
        UsageProblem: A shape names no input, or has another rank or other fixed dimensions than the input.
    """
    shapes = shapes or {}
    known = {port.name: port for port in inputs}
    symbols: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in known:
            raise UsageProblem(
                f"no input named {name!r}", hint=f"inputs: {', '.join(known)}", slug="unknown-input"
            )
        symbols |= _symbols_fixed_by(known[name], shape)
    rng = np.random.default_rng(seed)
    return {
        port.name: _array_for(port, shapes.get(port.name) or _shape_of(port, symbols), rng) for port in inputs
    }


def _symbols_fixed_by(port: Port, shape: Sequence[int]) -> dict[str, int]:
    fixed = [axis for axis in port.shape if isinstance(axis, int)]
    agreeing = [axis for axis, size in zip(port.shape, shape, strict=False) if axis == size]
    if len(shape) != len(port.shape) or (fixed and len(agreeing) < len(fixed)):
        wanted = "x".join(str(axis or "?") for axis in port.shape)
        raise UsageProblem(
            f"input {port.name!r} has shape {wanted}, which {'x'.join(map(str, shape))} does not fit",
            slug="bad-shape",
        )
    return {axis: size for axis, size in zip(port.shape, shape, strict=True) if isinstance(axis, str)}


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
