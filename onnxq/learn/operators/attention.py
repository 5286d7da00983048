"""Attention: scaled products of queries and keys, masked, and what they make of the values."""

from __future__ import annotations

import math
from typing import Any

import torch

from onnxq.learn.operators.call import Call, Tensor


def attend(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Any:
    """Attention over [B, heads, S, size] or [B, S, heads * size], a cache of keys and values in front."""
    if lengths is not None or any("window" in name for name in call.node.attributes):
        raise call.refuse("with padded keys and values, or a window")
    flat = query.dim() == 3
    if flat:
        query = _split(query, call.integer("q_num_heads", 1))
        key, value = (_split(each, call.integer("kv_num_heads", 1)) for each in (key, value))
    past = 0 if past_key is None else past_key.shape[2]
    key = key if past_key is None else torch.cat([past_key, key], 2)
    value = value if past_value is None else torch.cat([past_value, value], 2)
    shares = query.shape[1] // key.shape[1]
    keys, values = (each.repeat_interleave(shares, 1) for each in (key, value))
    scale = math.sqrt(call.number("scale", 0.0) or 1 / math.sqrt(query.shape[-1]))
    raw = (query * scale) @ (keys * scale).transpose(-1, -2)
    masked, weights, capped = _weights(call, raw, mask, past)
    made = weights @ values
    if flat:
        made = made.transpose(1, 2).flatten(2)
    shown = (raw, capped, masked, weights)[call.integer("qk_matmul_output_mode", 0)]
    return (made, key, value, shown)[: len(call.node.outputs)]


def _weights(call: Call, raw: Tensor, mask: Tensor | None, past: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores with the mask, the weights, and scores as capped; which comes first is as the operator says."""
    cap = call.number("softcap", 0.0)
    capped = torch.tanh(raw / cap) * cap if cap else raw
    masked = capped + _bias(call, raw, mask, past)
    hidden = torch.isneginf(masked).all(-1, keepdim=True)  # a row that sees nothing gives zeros
    weights = torch.softmax(masked.masked_fill(hidden, 0.0), -1).masked_fill(hidden, 0.0)
    return masked, weights, capped


def _bias(call: Call, scores: Tensor, mask: Tensor | None, past: int) -> Tensor:
    """What is added to the scores: minus infinity where nothing may be seen."""
    bias = torch.zeros(scores.shape[-2:], dtype=scores.dtype)
    if call.integer("is_causal", 0):
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(past)
        bias = bias.masked_fill(~allowed, float("-inf"))
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill(~mask, float("-inf"))
    missing = scores.shape[-1] - mask.shape[-1]
    mask = torch.nn.functional.pad(mask, (0, missing), value=float("-inf")) if missing > 0 else mask
    return bias + mask


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
