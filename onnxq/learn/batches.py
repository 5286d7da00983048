"""Samples for learning: in batches of like length, and errors that padding stays out of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from onnxq.errors import CalibrationError
from onnxq.learn.operators import Tensor, tensor_of

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one run is given.

    Attributes:
        feeds: A tensor for each input of the model.
        mask: True where a position is data, [B, S]; None where everything is.
    """

    feeds: Mapping[str, Tensor]
    mask: Tensor | None


def batches_of(model: ir.Model, feeds: Iterable[Feeds], size: int) -> list[Batch]:
    """Feeds as batches of at most `size` samples of like length, padding on the right cut off.

    Feeds stay as they are where the model fixes the batch size; padding stays where it fixes the length.
    """
    given = list(feeds)
    if not _is_free(model, 0):
        return [_batch(each) for each in given]
    samples: list[Feeds] = [
        {name: array[row : row + 1] for name, array in each.items()}
        for each in given
        for row in range(len(next(iter(each.values()))))
    ]
    if _is_free(model, 1):
        samples = [_trimmed(sample) for sample in samples]
    groups: dict[tuple[tuple[int, ...], ...], list[Feeds]] = {}
    if not _can_pad(samples):
        for sample in samples:
            groups.setdefault(tuple(array.shape for array in sample.values()), []).append(sample)
    else:
        groups[()] = sorted(samples, key=_length)
    return [
        _joined(group[start : start + size])
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def divided_batches(
    model: ir.Model, samples: Iterable[Feeds], held_out: Iterable[Feeds], size: int
) -> tuple[list[Batch], list[Batch]]:
    """Batches to learn from, and others to judge by.

    Raises:
        CalibrationError: Either is empty.
    """
    learning, judging = batches_of(model, samples, size), batches_of(model, held_out, size)
    if not learning or not judging:
        raise CalibrationError("there is no sample to learn from or to judge by", slug="empty-source")
    return learning, judging


def squared_error(got: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Sum of squared differences, in the precision of `got`, positions of padding left out."""
    error = (got - wanted).square()
    if mask is not None and error.dim() >= 3 and error.shape[:2] == mask.shape:
        error = error[mask]
    return error.sum()


def squared_size(wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Sum of squares, positions of padding left out."""
    return squared_error(wanted, torch.zeros_like(wanted), mask)


def _is_free(model: ir.Model, axis: int) -> bool:
    """Whether no input of the model fixes that axis."""
    shapes = [value.shape for value in model.graph.inputs if not value.is_initializer()]
    return all(
        shape is not None and len(shape) > 0 and not (len(shape) > axis and isinstance(shape[axis], int))
        for shape in shapes
    )


def _mask_name(feeds: Feeds) -> str | None:
    """The input that says which positions are data: [B, S] of integers, named after what it keeps."""
    for name in sorted(feeds, key=lambda name: name != "attention_mask"):
        lowered, array = name.lower(), feeds[name]
        kept = "mask" in lowered and "padding" not in lowered and "masked" not in lowered
        if kept and array.ndim == 2 and array.dtype.kind in "biu":
            return name
    return None


def _trimmed(sample: Feeds) -> Feeds:
    """A sample without the padding on its right, where all inputs have the shape of the mask."""
    name = _mask_name(sample)
    if name is None or any(array.shape != sample[name].shape for array in sample.values()):
        return sample
    used = np.flatnonzero(sample[name][0])
    length = int(used[-1]) + 1 if used.size else sample[name].shape[1]
    return {key: array[:, :length] for key, array in sample.items()}


def _can_pad(samples: Sequence[Feeds]) -> bool:
    """Whether samples of different lengths can be put together: all inputs are as long as their mask."""
    name = _mask_name(samples[0]) if samples else None
    return name is not None and all(
        array.shape == sample[name].shape for sample in samples for array in sample.values()
    )


def _length(sample: Feeds) -> int:
    return int(next(iter(sample.values())).shape[1])


def _joined(samples: Sequence[Feeds]) -> Batch:
    longest = max((_length(sample) for sample in samples), default=0) if _can_pad(samples) else 0
    joined = {
        name: np.concatenate([_padded(sample[name], longest) for sample in samples]) for name in samples[0]
    }
    return _batch(joined)


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    return np.pad(array, ((0, 0), (0, length - array.shape[1]))) if length else array


def _batch(feeds: Feeds) -> Batch:
    name = _mask_name(feeds)
    mask = torch.from_numpy(feeds[name] != 0) if name is not None else None
    return Batch({key: tensor_of(array) for key, array in feeds.items()}, mask)
