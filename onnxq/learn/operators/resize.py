"""Resize: each axis in turn, as a product with a matrix of interpolation weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from onnxq.learn.operators.call import Call, Tensor, integers_of, tensor_of


def resize(
    call: Call,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Resize by nearest, linear or cubic interpolation.

    Regions of interest, anti-aliasing and policies of aspect ratio are refused.
    """
    if call.opset < 11:
        raise call.refuse("before opset 11")
    if call.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise call.refuse("of a region of interest")
    if call.integer("antialias", 0) or call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("with anti-aliasing or an aspect ratio to keep")
    axes = call.integers("axes") or list(range(x.dim()))
    for axis, (size, scale) in zip(axes, _targets(x, axes, scales, sizes), strict=True):
        if size != x.shape[axis] or scale != 1.0:
            weights = tensor_of(_weights(call, x.shape[axis], size, scale)).to(x.dtype)
            x = torch.moveaxis(torch.tensordot(x, weights, ([axis], [1])), -1, axis)
    return x


def _targets(
    x: Tensor, axes: list[int], scales: Tensor | None, sizes: Tensor | None
) -> list[tuple[int, float]]:
    """Size and scale of each axis."""
    if sizes is not None and sizes.numel():
        wanted = integers_of(sizes)
        return [(size, size / x.shape[axis]) for axis, size in zip(axes, wanted, strict=True)]
    factors = [] if scales is None else [float(each) for each in scales.reshape(-1).tolist()]
    return [
        (int(np.floor(x.shape[axis] * factor)), factor) for axis, factor in zip(axes, factors, strict=True)
    ]


def _weights(call: Call, before: int, after: int, scale: float) -> Any:
    """The matrix [after, before] that interpolates along one axis."""
    places = _coordinates(call, before, after, scale)
    mode = call.text("mode", "nearest")
    weights = np.zeros((after, before))
    rows = np.arange(after)
    if mode == "nearest":
        weights[rows, np.clip(_nearest(call, places), 0, before - 1).astype(int)] = 1.0
        return weights
    floor = np.floor(places)
    offsets = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    for offset in offsets:
        distance = np.abs(places - floor - offset)
        share = 1 - distance if mode == "linear" else _cubic(distance, call.number("cubic_coeff_a", -0.75))
        column = floor + offset
        if call.integer("exclude_outside", 0):
            share = np.where((column < 0) | (column >= before), 0.0, share)
        np.add.at(weights, (rows, np.clip(column, 0, before - 1).astype(int)), share)
    return weights / weights.sum(axis=1, keepdims=True)


def _coordinates(call: Call, before: int, after: int, scale: float) -> Any:
    """Where each element of the result lies in the original."""
    mode = call.text("coordinate_transformation_mode", "half_pixel")
    x = np.arange(after, dtype=np.float64)
    length = before * scale
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * (before - 1) / (length - 1) if length != 1 else x * 0.0
    if mode == "pytorch_half_pixel" and after <= 1:
        return x * 0.0
    places = (x + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        places = places + before / 2 * (1 - after / length)
    return places


def _nearest(call: Call, places: np.ndarray) -> Any:
    mode = call.text("nearest_mode", "round_prefer_floor")
    if mode == "round_prefer_floor":
        return np.ceil(places - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(places + 0.5)
    return np.floor(places) if mode == "floor" else np.ceil(places)


def _cubic(distance: np.ndarray, a: float) -> Any:
    """Keys' cubic convolution kernel."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
