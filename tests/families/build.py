"""Models of any spec, and inputs that fit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from tests.families import crossed, decoder, post_encoder, pre_encoder, vision
from tests.families.spec import Spec
from tests.families.writer import Writer

FAMILIES: Mapping[str, Callable[[Writer], None]] = {
    "post-encoder": post_encoder.write,
    "pre-encoder": pre_encoder.write,
    "decoder": decoder.write,
    "post-crossed": crossed.write_post,
    "pre-crossed": crossed.write_pre,
    "vision": vision.write,
}


def build(spec: Spec) -> ir.Model:
    """A model; the same one every time."""
    writer = Writer(spec)
    FAMILIES[spec.family](writer)
    return writer.model()


def feeds_for(spec: Spec, seed: int = 0, *, samples: int = 2, length: int = 6) -> dict[str, np.ndarray]:
    """Random inputs; where there is a mask, rows but the first end early.

    Args:
        spec: The model.
        seed: Of the numbers.
        samples: Rows, unless the model fixes the batch and this is no multiple of it.
        length: Tokens of a row, unless the model fixes them.
    """
    random = np.random.default_rng([seed, spec.seed])
    if spec.sizes == "fixed":
        length = spec.dims.length
    if spec.family == "vision":
        pixels = random.standard_normal((samples, vision.COLOURS, vision.SIDE, vision.SIDE))
        return {"pixel_values": pixels.astype(spec.float_type)}
    ids = random.integers(0, spec.dims.vocabulary, (samples, length))
    ends = random.integers(1, length + 1, samples)
    ends[0] = length
    feeds = {"input_ids": ids, "attention_mask": (np.arange(length) < ends[:, None]).astype(np.int64)}
    if spec.family.endswith("crossed"):
        target = 4 if spec.sizes == "fixed" else max(1, length - 2)
        feeds["decoder_input_ids"] = random.integers(0, spec.dims.vocabulary, (samples, target))
    return feeds
