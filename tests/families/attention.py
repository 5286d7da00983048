"""Attention in each spelling: over the sequence itself or another, with grouped heads, rotary positions."""

from __future__ import annotations

import math

import numpy as np
from onnx import numpy_helper

from tests.families.linears import linear
from tests.families.masks import LOWEST, Mask, addend, positions, visible
from tests.families.writer import CONTRIB, Writer


def attention(
    w: Writer, x: str, memory: str, mask: Mask, *, name: str = "attention", grouped: bool = False
) -> str:
    """Attention of `x` [batch, queries, C] over `memory` [batch, keys, C].

    Args:
        w: The writer.
        x: What asks.
        memory: What is asked; `x` itself for self-attention.
        mask: Which keys are seen.
        name: What to call the block.
        grouped: Whether keys and values have fewer heads, and queries and keys rotary positions.
    """
    dims = w.spec.dims
    with w.inside(name):
        kv_heads = dims.kv_heads if grouped else dims.heads
        query, key, value = _projections(w, x, memory, kv_heads)
        if w.spec.attention == "contrib" and not grouped:
            context = _multi_head(w, query, key, value, mask)
        else:
            query, key, value = (
                _split_heads(w, part, heads)
                for part, heads in ((query, dims.heads), (key, kv_heads), (value, kv_heads))
            )
            if grouped:
                query, key = _rotated(w, query, x), _rotated(w, key, x)
            context = _context(w, query, key, value, mask, queries=x, repeats=dims.heads // kv_heads)
            context = w.reshape(w.op("Transpose", context, perm=[0, 2, 1, 3]), dims.width)
        return linear(w, w.passed(context, "Identity"), "out", dims.width, dims.width)


def _projections(w: Writer, x: str, memory: str, kv_heads: int) -> tuple[str, str, str]:
    width = w.spec.dims.width
    narrow = kv_heads * (width // w.spec.dims.heads)
    if w.spec.attention == "packed":
        if x == memory:
            packed = linear(w, x, "qkv", width, width + 2 * narrow)
            return w.ops("Split", packed, w.ints(width, narrow, narrow), outputs=3, axis=-1)
        packed = linear(w, memory, "kv", width, 2 * narrow)
        return linear(w, x, "q", width, width), *w.ops(
            "Split", packed, w.ints(narrow, narrow), outputs=2, axis=-1
        )
    return (
        linear(w, x, "q", width, width),
        linear(w, memory, "k", width, narrow),
        linear(w, memory, "v", width, narrow),
    )


def _split_heads(w: Writer, x: str, heads: int) -> str:
    """[batch, length, heads * size] => [batch, heads, length, size]."""
    size = w.spec.dims.width // w.spec.dims.heads
    return w.op("Transpose", w.reshape(x, heads, size), perm=[0, 2, 1, 3])


def _context(w: Writer, query: str, key: str, value: str, mask: Mask, *, queries: str, repeats: int) -> str:
    """[batch, heads, queries, size]."""
    size = w.spec.dims.width // w.spec.dims.heads
    if w.spec.attention == "operator":
        masks = [] if mask.is_empty else [_for_each_query(w, addend(w, mask, queries), queries)]
        return w.op("Attention", query, key, value, *masks, scale=1 / math.sqrt(size))
    if repeats > 1:
        key, value = _repeated(w, key, repeats), _repeated(w, value, repeats)
    turned = w.op("Transpose", key, perm=[0, 1, 3, 2])
    if w.spec.attention == "guarded":
        factor = w.number(size**-0.25)
        scores = w.op("MatMul", w.op("Mul", query, factor), w.op("Mul", turned, factor))
    else:
        scores = w.op("Div", w.op("MatMul", query, turned), w.number(math.sqrt(size)))
    if not mask.is_empty and w.spec.mask == "additive":
        scores = w.op("Add", scores, addend(w, mask, queries))
    elif not mask.is_empty:
        scores = w.op("Where", visible(w, mask, queries), scores, w.number(LOWEST))
    shares = w.op("Softmax", scores, axis=-1)
    if w.spec.attention == "guarded":
        shares = w.op("Where", w.op("IsNaN", shares), w.number(0.0), shares)
    return w.op("MatMul", shares, value)


def _for_each_query(w: Writer, added: str, queries: str) -> str:
    """The runtime's Attention stretches a mask along samples and heads only."""

    def make() -> str:
        return w.op("Expand", added, w.op("Concat", w.ints(1, 1), w.size(queries, 1), w.ints(1), axis=0))

    return w.once(f"{added} for {queries}", make)


def _multi_head(w: Writer, query: str, key: str, value: str, mask: Mask) -> str:
    """The runtime's own operator, which takes heads side by side."""
    padding = ""
    if mask.padding:
        padding = w.once(f"narrow {mask.padding}", lambda: w.op("Cast", mask.padding, to=6))
    inputs = [query, key, value, "", padding] if padding else [query, key, value]
    return w.contrib(
        "MultiHeadAttention", *inputs, num_heads=w.spec.dims.heads, unidirectional=int(mask.causal)
    )


def _repeated(w: Writer, x: str, times: int) -> str:
    """Each head of `x` [batch, heads, length, size] as many `times` in a row."""
    dims = w.spec.dims
    stretched = w.op("Expand", w.op("Unsqueeze", x, w.ints(2)), w.ints(1, 1, times, 1, 1))
    batch = dims.batch if w.spec.sizes == "fixed" else 0
    return w.op("Reshape", stretched, w.ints(batch, dims.heads, -1, dims.width // dims.heads))


def _rotated(w: Writer, x: str, tokens: str) -> str:
    """Heads turned by their positions."""
    size = w.spec.dims.width // w.spec.dims.heads
    steps = np.arange(w.spec.dims.positions)[:, None] * 10.0 ** -np.arange(0, size, 2)[None]
    if w.spec.attention == "contrib":
        cos, sin = (w.parameter(name, lambda _, f=f: f(steps), key=name) for name, f in _WAVES)
        ids = w.once("ids", lambda: w.op("Unsqueeze", positions(w, tokens), w.ints(0)))
        wide = w.op("Add", ids, w.once("no ids", lambda: _zeros(w, tokens)))
        return w.op("RotaryEmbedding", x, wide, cos, sin, domain=CONTRIB)
    table = np.concatenate([steps, steps], axis=1)
    cos, sin = (
        w.once(f"{name} rows", lambda name=name, f=f: _rows(w, name, f(table), tokens)) for name, f in _WAVES
    )
    low = w.op("Slice", x, w.ints(0), w.ints(size // 2), w.ints(3))
    high = w.op("Slice", x, w.ints(size // 2), w.ints(2**31 - 1), w.ints(3))
    turned = w.op("Concat", w.op("Neg", high), low, axis=-1)
    return w.op("Add", w.op("Mul", x, cos), w.op("Mul", turned, sin))


_WAVES = (("cos", np.cos), ("sin", np.sin))


def _rows(w: Writer, name: str, table: np.ndarray, tokens: str) -> str:
    return w.op("Gather", w.parameter(name, lambda _: table, key=name), positions(w, tokens), axis=0)


def _zeros(w: Writer, tokens: str) -> str:
    """A column of zeros, one for each sample."""
    shape = w.op("Concat", w.size(tokens, 0), w.ints(1), axis=0)
    return w.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.int64)))
