"""An encoder, and a decoder that attends to what it gives; norms behind the additions, or in front."""

from __future__ import annotations

from tests.families.attention import attention
from tests.families.embeddings import embedded, finish, token_inputs
from tests.families.feedforward import feed_forward
from tests.families.masks import Mask
from tests.families.norms import add_and_norm, norm
from tests.families.writer import Writer


def write_post(w: Writer) -> None:
    """Norms in the stream; every layer of the decoder reads the encoder's last norm."""
    source, target, padding, causal = _inputs(w)
    x = norm(w, embedded(w, source), "encoder.norm")
    with w.inside("encoder.layers.0"):
        x, _ = add_and_norm(w, x, attention(w, x, x, padding), "norm1")
        memory, _ = add_and_norm(w, x, feed_forward(w, x), "norm2")
    x = norm(w, embedded(w, target), "decoder.norm")
    for index in range(w.spec.dims.layers):
        with w.inside(f"decoder.layers.{index}"):
            x, _ = add_and_norm(w, x, attention(w, x, x, causal), "norm1")
            x, _ = add_and_norm(w, x, attention(w, x, memory, padding, name="cross"), "norm2")
            x, _ = add_and_norm(w, x, feed_forward(w, x), "norm3")
    finish(w, x, _length(w))


def write_pre(w: Writer) -> None:
    """Norms in front of the branches, and one behind each stack."""
    source, target, padding, causal = _inputs(w)
    x = embedded(w, source)
    normed = norm(w, x, "encoder.layers.0.norm1")
    with w.inside("encoder.layers.0"):
        normed, x = add_and_norm(w, x, attention(w, normed, normed, padding), "norm2")
        branch = feed_forward(w, normed)
    memory, _ = add_and_norm(w, x, branch, "encoder.norm")
    x = embedded(w, target)
    normed = norm(w, x, "decoder.layers.0.norm1")
    last = w.spec.dims.layers - 1
    for index in range(last + 1):
        with w.inside(f"decoder.layers.{index}"):
            normed, x = add_and_norm(w, x, attention(w, normed, normed, causal), "norm2")
            branch = attention(w, normed, memory, padding, name="cross")
            normed, x = add_and_norm(w, x, branch, "norm3")
            branch = feed_forward(w, normed)
        following = "decoder.norm" if index == last else f"decoder.layers.{index + 1}.norm1"
        normed, x = add_and_norm(w, x, branch, following)
    finish(w, normed, _length(w))


def _inputs(w: Writer) -> tuple[str, str, Mask, Mask]:
    source, padding = token_inputs(w)
    target, _ = token_inputs(w, "decoder_", _length(w))
    w.inputs.pop()  # the target has no padding
    return source, target, Mask(padding), Mask(causal=True)


def _length(w: Writer) -> int | str:
    return 4 if w.spec.sizes == "fixed" else "target_length"
