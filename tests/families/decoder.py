"""A decoder as LLaMA: RMS norms in front, rotary positions, grouped heads, gated feed-forwards."""

from __future__ import annotations

from tests.families.attention import attention
from tests.families.embeddings import finish, table, token_inputs
from tests.families.feedforward import gated_feed_forward
from tests.families.masks import Mask
from tests.families.norms import add_and_norm, norm
from tests.families.writer import Writer


def write(w: Writer) -> None:
    """ids, mask -> embeddings -> (norm, attention, +, norm, gated feed-forward, +) each layer -> norm."""
    ids, padding = token_inputs(w)
    with w.inside("embeddings"):
        x = w.op("Gather", table(w), ids, axis=0)
    mask = Mask(padding, causal=True)
    normed = norm(w, x, "layers.0.norm1")
    last = w.spec.dims.layers - 1
    for index in range(last + 1):
        with w.inside(f"layers.{index}"):
            branch = attention(w, normed, normed, mask, grouped=True)
            normed, x = add_and_norm(w, x, branch, "norm2")
            branch = gated_feed_forward(w, normed)
        following = "norm" if index == last else f"layers.{index + 1}.norm1"
        normed, x = add_and_norm(w, x, branch, following)
    finish(w, normed, w.length)
