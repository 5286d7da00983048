"""The benchmark's real models as functions of torch: the numbers of the runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.models import cache_folder
from onnxq.files import load
from onnxq.learn.program import Program
from tests.graphs import outputs_of

MODELS = ("minilm/dynamo.onnx", "minilm/torchscript.onnx", "vit/model.onnx", "smollm2/model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_real_models_compute_what_the_runtime_computes(name):
    path = cache_folder() / name
    data = cache_folder() / "data" / path.parent.name / "test.npz"
    if not path.exists() or not data.exists():
        pytest.skip("the benchmark's models were not fetched")
    model = load(path)
    arrays = np.load(data)
    feeds = {str(value.name): arrays[str(value.name)][:1] for value in model.graph.inputs}
    feeds = {key: array[:, :64] if array.ndim == 2 else array for key, array in feeds.items()}
    with torch.no_grad():
        got = Program(model)(feeds)
    for key, wanted in outputs_of(model, feeds).items():
        np.testing.assert_allclose(got[key], wanted, atol=5e-6 * np.abs(wanted).max() + 1e-5)
