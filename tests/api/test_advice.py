"""What a report advises: said where it holds, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.api.advice import next_steps
from onnxq.api.attempts import Outcome
from onnxq.api.speed import Venue
from onnxq.api.stage import Stage
from onnxq.recipe import DataSettings, OptimizeSettings
from onnxq.targets import TARGETS
from onnxq.verify import Comparison, OutputComparison
from tests.api import models
from tests.graphs import model_of


def hints(given: ir.Model, made: ir.Model, *, noise: float = 0.0) -> str:
    """For `made` of `given`, with so much noise to one part of signal."""
    data = {"x": np.ones((64, 16), np.float32)}
    stage = Stage.open(given, data, DataSettings(), threads=1)
    fidelity = Comparison({"y": OutputComparison("y", signal=1.0, noise=noise)})
    outcome = Outcome(made, given, (), None, fidelity)
    venue = Venue(TARGETS["x86-vnni"], "x86-vnni")
    return "\n".join(next_steps(stage, outcome, venue, OptimizeSettings(), ()))


@pytest.mark.parametrize(("noise", "is_far"), [(0.0, False), (0.05, False), (0.2, True), (2.0, True)])
def test_an_output_that_is_hardly_the_originals_is_named(noise: float, is_far: bool) -> None:
    given = models.small()
    assert ("y is far from the original's" in hints(given, given, noise=noise)) is is_far


def layers(*weights: str) -> ir.Model:
    """Linears behind each other that multiply by these weights."""
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(16, 16)).astype(np.float32) for name in weights}
    names = ["x", *(f"h{number}" for number in range(len(weights) - 1)), "y"]
    body = " ".join(
        f"{after} = MatMul({before}, {weight})"
        for before, after, weight in zip(names, names[1:], weights, strict=False)
    )
    return model_of(f"g (float[N,16] x) => (float[N,16] y) {{ {body} }}", **arrays)


def test_weights_that_grew_since_linears_no_longer_share_them_are_told() -> None:
    shared, apart = layers("w", "w", "w"), layers("u", "v", "w")
    assert "The weights grew from 1.02 kB to 3.07 kB: 3 linears have 1 between them" in hints(shared, apart)
    assert "grew" not in hints(shared, shared)
    assert "grew" not in hints(layers("w"), apart), "there was nothing to share"


def test_a_model_that_the_runtimes_optimizer_went_over_is_called_that() -> None:
    given = models.small()
    assert "optimizer has been here" not in hints(given, given)
    fused = models.small()
    for node in fused.graph:
        if node.op_type == "LayerNormalization":
            node.domain, node.op_type = "com.microsoft", "SkipLayerNormalization"
    assert "1 SkipLayerNormalization hide norms and linears" in hints(fused, fused)
