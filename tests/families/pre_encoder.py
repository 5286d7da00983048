"""An encoder with norms in front of the branches: the stream itself is never normalised."""

from __future__ import annotations

from tests.families.attention import attention
from tests.families.embeddings import embedded, finish, token_inputs
from tests.families.feedforward import feed_forward
from tests.families.masks import Mask
from tests.families.norms import add_and_norm, norm
from tests.families.writer import Writer


def write(w: Writer) -> None:
    """ids, mask -> embeddings -> (norm, attention, +, norm, feed-forward, +) each layer -> norm."""
    ids, mask = token_inputs(w)
    finish(w, layers(w, embedded(w, ids), Mask(mask)), w.length)


def layers(w: Writer, x: str, mask: Mask) -> str:
    """The stack, and the norm behind it."""
    normed = norm(w, x, "layers.0.norm1")
    last = w.spec.dims.layers - 1
    for index in range(last + 1):
        with w.inside(f"layers.{index}"):
            normed, x = add_and_norm(w, x, attention(w, normed, normed, mask), "norm2")
            branch = feed_forward(w, normed)
        following = "norm" if index == last else f"layers.{index + 1}.norm1"
        normed, x = add_and_norm(w, x, branch, following)
    return normed
