"""Planting outliers makes a few channels large and changes nothing else."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks import train_demo  # noqa: E402  # needs torch


def test_planted_outliers_keep_the_function():
    torch.manual_seed(0)
    model = train_demo.DigitTransformer(train_demo.Training(width=16, layers=1)).eval()
    images = torch.rand(5, 8, 8)
    with torch.inference_mode():
        before = model(images)
        train_demo.plant_outliers(model, train_demo.Outliers(channels=(3, 7)))
        after = model(images)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    gamma = model.blocks[0].norm1.weight.detach()
    assert sorted(gamma.argsort()[-2:].tolist()) == [3, 7]
    assert gamma[[3, 7]].min() >= 30.0


def test_moved_images_keep_their_ink_and_stay_near():
    torch.manual_seed(0)
    images = torch.zeros(200, 8, 8)
    images[:, 4, 4] = 1.0
    moved = train_demo.move(images)
    places = {tuple(place) for place in moved.nonzero()[:, 1:].tolist()}
    assert moved.sum() == 200.0
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}
