"""An encoder with norms in front of the branches: the stream itself is never normalised."""

from __future__ import annotations

from tests.families.attention import attention
from tests.families.embeddings import embedded, finish, token_inputs
from tests.families.feedforward import feed_forward
from tests.families.masks import Mask
from tests.families.norms import add_and_norm, norm
from tests.families.numbers import vectors
from tests.families.writer import Writer


def write(w: Writer) -> None:
    """ids, mask -> embeddings -> (norm, attention, +, norm, feed-forward, +) each layer -> norm."""
    ids, mask = token_inputs(w)
    finish(w, layers(w, embedded(w, ids), Mask(mask)), w.length)


def _scaled(w: Writer, branch: str, which: str) -> str:
    """The branch, in vision transformers times a factor for each channel."""
    if w.spec.family != "vision":
        return branch
    return w.op("Mul", branch, w.parameter(f"scale{which}", vectors(w.spec.dims.width, size=0.2, around=1.0)))


def layers(w: Writer, x: str, mask: Mask) -> str:
    """The stack, and the norm behind it."""
    normed = norm(w, x, "layers.0.norm1")
    last = w.spec.dims.layers - 1
    for index in range(last + 1):
        with w.inside(f"layers.{index}"):
            normed, x = add_and_norm(w, x, _scaled(w, attention(w, normed, normed, mask), "1"), "norm2")
            branch = _scaled(w, feed_forward(w, normed), "2")
        following = "norm" if index == last else f"layers.{index + 1}.norm1"
        normed, x = add_and_norm(w, x, branch, following)
    return normed
