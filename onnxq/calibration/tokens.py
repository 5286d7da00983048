"""From an activation to tokens: rows of channels, sample by sample, without padding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.calibration.inputs import Array, Feeds, InputSpec

Mask = npt.NDArray[np.bool_]


def masks_of(feeds: Feeds, specs: Sequence[InputSpec]) -> tuple[Mask, ...]:
    """Masks among the inputs, True where a position is data; ``attention_mask`` first.

    An input is taken for a mask if its name says so, it is [batch, sequence] of integers or booleans, and it
    is not named after what it hides (``key_padding_mask``, ``bool_masked_pos``), which would turn its meaning
    round.
    """
    named = sorted(
        (spec.name for spec in specs if _names_a_mask(spec.name)), key=lambda name: name != "attention_mask"
    )
    arrays = (feeds[name] for name in named)
    return tuple(array != 0 for array in arrays if array.ndim == 2 and array.dtype.kind in "biu")


def sample_keys(feeds: Feeds, samples: int, masks: Sequence[Mask]) -> list[int]:
    """A hash of the content of each sample of a feed, the same whatever it was padded to and batched with."""
    keys = []
    for row in range(samples):
        state = hashlib.blake2b(digest_size=8)
        for name in sorted(feeds):
            array = feeds[name]
            if array.ndim and len(array) == samples:
                mask = next((mask for mask in masks if mask.shape == array.shape[:2]), None)
                array = array[row] if mask is None else array[row][mask[row]]
            state.update(str(array.tolist()).encode() if array.dtype == object else array.tobytes())
        keys.append(int.from_bytes(state.digest(), "big"))
    return keys


def tokens_by_sample(
    array: Array, samples: int, masks: Sequence[Mask]
) -> Iterator[tuple[int | None, npt.NDArray[np.floating[Any]]]]:
    """The tokens of each sample, [T, C]; of all samples at once (None) where the value has no batch axis.

    Positions that a mask excludes are left out of values of the shapes [B, S, C], [B, S, ..., C] and [B*S,
    C]. Everything else, such as [B, heads, S, S], is counted whole. A scalar is one token of one channel.

    Args:
        array: Floats of any shape.
        samples: Size B of the batch axis.
        masks: Boolean [B, S]; the first that fits is taken.
    """
    wide = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    mask = _mask_for(wide.shape, masks)
    if mask is not None:
        rows = wide.reshape(*mask.shape, *wide.shape[1:]) if wide.ndim == 2 else wide
        for sample in range(samples):
            yield sample, _rows(rows[sample][mask[sample]])
    elif wide.ndim > 1 and len(wide) == samples:
        for sample in range(samples):
            yield sample, _rows(wide[sample])
    elif wide.ndim == 2 and len(wide) % samples == 0:
        for sample, part in enumerate(np.split(wide, samples)):
            yield sample, _rows(part)
    else:
        yield None, _rows(wide)


def key_of(sample: int | None, keys: Sequence[int]) -> int:
    """The key of a sample; of all of them together for None."""
    if sample is not None:
        return keys[sample]
    whole = hashlib.blake2b(b"".join(key.to_bytes(8, "big") for key in sorted(keys)), digest_size=8)
    return int.from_bytes(whole.digest(), "big")


def batch_bytes(feeds: Mapping[str, Array]) -> int:
    """Size of a feed in memory."""
    return sum(array.nbytes for array in feeds.values())


def _names_a_mask(name: str) -> bool:
    lowered = name.lower()
    return "mask" in lowered and "padding" not in lowered and "masked" not in lowered


def _mask_for(shape: tuple[int, ...], masks: Sequence[Mask]) -> Mask | None:
    for mask in masks:
        leading = len(shape) > 2 and shape[:2] == mask.shape
        # [B, heads, S, S] with as many heads as tokens looks the same: better whole than wrongly cut.
        ambiguous = len(shape) > 3 and shape[1] == shape[2]
        if (leading and not ambiguous) or (len(shape) == 2 and shape[0] == mask.size):
            return mask
    return None


def _rows(array: Array) -> Array:
    """`array` with its last axis as channels and all others as one."""
    if array.ndim == 0:
        return array.reshape(1, 1)
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
