"""A transformer small enough to ship: it reads 8x8 handwritten digits, and min-max INT8 hurts it.

`benchmarks/train_demo.py` trained it and says where its activation outliers come from. The images are
scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998,
CC BY 4.0).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

INPUT = "image"
"""The model's only input, float32 [batch, 8, 8] between 0 (paper) and 1 (ink)."""
OUTPUT = "logits"
"""The model's only output, float32 [batch, 10]."""


def model_path() -> Path:
    """The ONNX file of the classifier."""
    return Path(__file__).parent / "digits.onnx"


def load_calibration() -> dict[str, np.ndarray]:
    """Give 64 training images by input name, float32 [64, 8, 8]."""
    return {INPUT: _scaled(_read("calibration"))}


def load_test() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Give unseen images by input name, float32 [540, 8, 8], and their digits, int64 [540]."""
    return {INPUT: _scaled(_read("test"))}, _read("labels").astype(np.int64)


def _scaled(sixteenths: np.ndarray) -> np.ndarray:
    """Images are kept in the unit of the original scans, sixteenths of full ink."""
    return sixteenths.astype(np.float32) / 16


def _read(name: str) -> np.ndarray:
    with np.load(Path(__file__).parent / "digits.npz", allow_pickle=False) as arrays:
        array: np.ndarray = arrays[name]
        return array
