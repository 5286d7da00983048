"""An encoder in the manner of BERT: norms behind the residual additions, in the stream itself."""

from __future__ import annotations

from tests.families.attention import attention
from tests.families.embeddings import embedded, finish, token_inputs
from tests.families.feedforward import feed_forward
from tests.families.masks import Mask
from tests.families.norms import add_and_norm, norm
from tests.families.writer import Writer


def write(w: Writer) -> None:
    """ids, mask -> embeddings -> norm -> (attention, + and norm, feed-forward, + and norm) each layer."""
    ids, mask = token_inputs(w)
    x = norm(w, embedded(w, ids), "embeddings.norm")
    for index in range(w.spec.dims.layers):
        with w.inside(f"layers.{index}"):
            x, _ = add_and_norm(w, x, attention(w, x, x, Mask(mask)), "norm1")
            x, _ = add_and_norm(w, x, feed_forward(w, x), "norm2")
    finish(w, x, w.length)
