"""Crops of photographs in scikit-image and scikit-learn; calibration and test never share a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIZE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CROPS = 4
"""Crops of one picture."""

CALIBRATION = (
    "astronaut",
    "coffee",
    "rocket",
    "motorcycle_left",
    "china",
    "coins",
    "moon",
    "hubble_deep_field",
)
TEST = ("chelsea", "flower", "camera", "retina", "ihc", "clock_motion", "horse", "cell")


def write_crops(pictures: tuple[str, ...], folder: Path, seed: int) -> np.ndarray:
    """Write `CROPS` square crops of each picture as PNG files.

    Returns:
        The crops as the model takes them, float32 [crops, 3, SIZE, SIZE], in the order of the files' names.
    """
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    arrays = []
    for name in sorted(pictures):
        picture = _open(name)
        for number in range(CROPS):
            crop = _crop(picture, generator)
            crop.save(folder / f"{name}-{number}.png")
            arrays.append(normalise(np.asarray(crop)))
    return np.stack(arrays)


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 [H, W, 3] into float32 [3, H, W] about the mean and deviation of ImageNet."""
    scaled = (pixels.astype(np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _crop(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Cut a square of between half and all of the shorter side, and bring it to SIZE."""
    from PIL import Image

    side = int(min(picture.size) * generator.uniform(0.5, 1.0))
    left, top = (int(generator.integers(0, extent - side + 1)) for extent in picture.size)
    return picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def _open(name: str) -> Image.Image:
    import skimage
    import sklearn
    from PIL import Image

    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images")
    found = next(path for folder in folders for path in folder.glob(f"{name}.*"))
    return Image.open(found).convert("RGB")
