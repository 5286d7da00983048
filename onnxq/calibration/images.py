"""A folder of images, scaled to what the model takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.calibration.inputs import Array, InputSpec, fixed_batch
from onnxq.calibration.source import DataOptions, DataSource, Item, make_source
from onnxq.errors import CalibrationError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class ImageReader:
    """Image files, in the order of their names.

    The shorter side is scaled to the wanted size (bicubic), the middle is cut out, pixels are scaled to 0..1,
    then `mean` is subtracted and `std` divides. A model that takes uint8 gets the pixels themselves.
    """

    origin: str
    files: tuple[Path, ...]
    spec: InputSpec
    size: tuple[int, int]
    channels: int
    channels_first: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    uniform: bool = True

    @property
    def preparation(self) -> str:
        """Everything that shapes the pixels."""
        return f"{self.size} {self.channels} {self.channels_first} {self.mean} {self.std} {self.spec.dtype}"

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Prepared images, one in memory at a time."""
        for index in indices:
            yield {self.spec.name: self._prepare(self.files[index])}

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """A batch."""
        return {self.spec.name: np.stack([item[self.spec.name] for item in items])}

    def _prepare(self, path: Path) -> Array:
        pixels = _pixels(path, self.size, _MODES[self.channels])
        if self.spec.dtype != np.uint8:
            scaled = (pixels / 255.0 - np.array(self.mean)) / np.array(self.std)
            pixels = scaled.astype(np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if self.channels_first else pixels


def open_images(
    folder: Path, files: Sequence[Path], specs: tuple[InputSpec, ...], options: DataOptions
) -> DataSource:
    """A source over the images of a folder.

    Raises:
        CalibrationError: The model takes no images, an option is missing or does not fit, or a file is no
            image.
    """
    _require_pillow()
    if len(specs) != 1 or specs[0].rank != 4:
        raise CalibrationError(
            f"{folder}: images fill one input of 4 axes; the model wants {', '.join(map(str, specs))}",
            hint="give an .npz file or module:function with arrays by input name",
            slug="not-an-image-model",
        )
    spec = specs[0]
    channels, first = _channels(spec)
    chosen = tuple(sorted(files)[: options.limit])
    size = _size(spec, options, channels_first=first)
    mean, std = _per_channel(options.mean, channels, "mean"), _per_channel(options.std, channels, "std")
    reader = ImageReader(str(folder), chosen, spec, size, channels, first, mean, std)
    items = [Item(hashlib.sha256(file.read_bytes()).digest()) for file in chosen]
    fixed = fixed_batch(specs)
    return make_source(
        reader, specs, items, options, batch_size=fixed or options.batch_size, whole_batches=fixed is not None
    )


def _channels(spec: InputSpec) -> tuple[int, bool]:
    """Number of channels, and whether their axis is in front; three in front if nothing says so."""
    shape = spec.shape or ()
    for axis, first in ((1, True), (3, False)):
        size = shape[axis]
        if isinstance(size, int) and size in _MODES:
            return size, first
    if isinstance(shape[1], int) and isinstance(shape[3], int):
        raise CalibrationError(
            f"{spec} has no axis of 1, 3 or 4 channels",
            hint="give an .npz file or module:function with arrays by input name",
            slug="not-an-image-model",
        )
    return 3, True


def _size(spec: InputSpec, options: DataOptions, *, channels_first: bool) -> tuple[int, int]:
    """Height and width: the model's where it fixes them, else the option's."""
    fixed = (spec.shape or ())[2:4] if channels_first else (spec.shape or ())[1:3]
    sizes = [dim if isinstance(dim, int) else options.image_size for dim in fixed]
    height, width = sizes
    if height is None or width is None:
        raise CalibrationError(
            f"{spec} leaves the size of images open",
            hint="say it with --image-size PIXELS",
            slug="no-image-size",
        )
    if options.image_size is not None and options.image_size not in (height, width):
        raise CalibrationError(
            f"{spec} takes {height}x{width} pixels, not {options.image_size}",
            hint="leave --image-size out",
            slug="wrong-image-size",
        )
    if min(height, width) < 1:
        raise CalibrationError(f"an image of {height}x{width} pixels", slug="wrong-image-size")
    return height, width


def _per_channel(numbers: tuple[float, ...], channels: int, option: str) -> tuple[float, ...]:
    if len(numbers) not in (1, channels) or (option == "std" and 0 in numbers):
        raise CalibrationError(
            f"--{option} {','.join(map(str, numbers))} for images of {channels} channels",
            hint=f"give one number, or one for each channel{' (none of them 0)' if option == 'std' else ''}",
            slug="wrong-channel-option",
        )
    return numbers * channels if len(numbers) == 1 else numbers


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise CalibrationError(
            "reading images needs the package Pillow", hint='pip install "onnxq[images]"', slug="no-pillow"
        ) from None


def _pixels(path: Path, size: tuple[int, int], mode: str) -> Array:
    """The middle of an image, uint8 [height, width, channels]."""
    from PIL import Image, ImageOps

    height, width = size
    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(
                ImageOps.exif_transpose(image).convert(mode), (width, height), Image.Resampling.BICUBIC
            )
    except Exception as error:  # damaged files raise whatever their decoder raises
        raise CalibrationError(
            f"{path} is damaged or no image: {error}", hint="take it out of the folder", slug="bad-image"
        ) from error
    pixels = np.asarray(fitted, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
