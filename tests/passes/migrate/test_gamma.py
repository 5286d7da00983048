"""The norm behind an encoder and all who may read it: keys and values of decoders, a pooler, an output."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.pipeline import apply_pass
from tests.graphs import ops_of, outputs_of
from tests.passes.migrate.families import made_by, norms_of
from tests.passes.migrate.test_migration import C, built, migrated, reasons, seen

NORM = "n = LayerNormalization(x, gamma, beta)"
BOTH = pytest.mark.parametrize("a_pass", [FoldGamma(), ShiftScale()], ids=lambda each: each.name)


def crossed(layers: int, seed: int, *, tail: str = "") -> tuple[str, dict[str, np.ndarray]]:
    """The body of a decoder of some layers, each attending to the encoder's norm `n` from a stream `z`."""
    random = np.random.default_rng(seed)
    arrays = {"gamma": random.uniform(0.2, 9.0, C) * random.choice([-1, 1], C)}
    lines = [NORM, "z0 = Tanh(x)"]
    for layer in range(layers):
        for role in "qkvo":
            arrays[f"{role}{layer}"] = random.normal(size=(C, C)) * 0.3
        lines += [
            f"query{layer} = MatMul(z{layer}, q{layer})",
            f"key{layer} = MatMul(n, k{layer})",
            f"value{layer} = MatMul(n, v{layer})",
            f"turned{layer} = Transpose<perm = [1, 0]>(key{layer})",
            f"score{layer} = MatMul(query{layer}, turned{layer})",
            f"weight{layer} = Softmax<axis = -1>(score{layer})",
            f"context{layer} = MatMul(weight{layer}, value{layer})",
            f"branch{layer} = MatMul(context{layer}, o{layer})",
            f"z{layer + 1} = Add(z{layer}, branch{layer})",
        ]
    return " ".join([*lines, f"y = Identity(z{layers})", tail]), arrays


@BOTH
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layers", [1, 3])
def test_keys_and_values_of_every_decoder_layer_are_compensated(a_pass, layers, seed):
    body, arrays = crossed(layers, seed)
    result = migrated(built(body, **arrays), a_pass, seen(seed))
    assert result.modified
    assert made_by(result.model, a_pass).count("Mul") == 0


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_an_encoder_that_is_an_output_too_gets_its_old_numbers(a_pass, seed):
    body, arrays = crossed(2, seed)
    model = built(body, "double[N,6] n, double[N,6] y", **arrays)
    result = migrated(model, a_pass, seen(seed))
    restored = ["Mul", "Add"] if isinstance(a_pass, ShiftScale) else ["Mul"]
    assert ops_of(result.model)[: len(restored) + 2] == ["LayerNormalization", *restored, "Tanh"]
    assert made_by(result.model, a_pass).count("Mul") == 1
    given = result.model.graph.outputs[0]
    assert (given.name, str(given.shape), given.dtype) == ("n", "[N,6]", ir.DataType.DOUBLE)
    (norm,) = norms_of(result.model)
    assert norm.output.name == "n_migrated", "statistics of the old numbers do not fit it"
    assert not apply_pass(result.model, a_pass, seen(seed)).modified


@BOTH
def test_a_copy_that_is_an_output_gets_the_old_numbers(a_pass):
    body, arrays = crossed(2, 0, tail="hidden = Relu(n)")
    result = migrated(built(body, "double[N,6] y, double[N,6] hidden", **arrays), a_pass)
    assert result.modified
    assert made_by(result.model, a_pass).count("Mul") == 1


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_the_first_token_that_a_pooler_takes_is_compensated(a_pass, seed):
    pooler = "f = Gather<axis = -2>(n, first) p = MatMul(f, v) t = Tanh(p)"
    body = f"{NORM} m = MatMul(n, w) {pooler} y = Add(m, t)"
    arrays = {"first": np.array([0])}
    result = migrated(built(body, **arrays), a_pass, seen(seed))
    assert result.modified
    assert made_by(result.model, a_pass).count("Mul") == 0


@BOTH
def test_the_first_token_that_no_linear_takes_gets_the_old_numbers(a_pass):
    body = f"{NORM} m = MatMul(n, w) f = Gather<axis = -2>(n, first) t = Tanh(f) y = Add(m, t)"
    result = migrated(built(body, first=np.array([0])), a_pass)
    assert made_by(result.model, a_pass).count("Mul") == 1


def albert(layers: int) -> str:
    """One layer run again and again: norm and linear share their constants with all the others."""
    lines = ["x0 = Identity(x)"]
    for layer in range(layers):
        lines += [
            f"n{layer} = LayerNormalization(x{layer}, gamma, beta)",
            f"m{layer} = MatMul(n{layer}, w)",
            f"x{layer + 1} = Tanh(m{layer})",
        ]
    return " ".join([*lines, f"y = Identity(x{layers})"])


@BOTH
def test_a_layer_that_runs_again_and_again_is_left_alone(a_pass):
    model = built(albert(3))
    statistics = {name: stats for layer in range(3) for name, stats in seen(layer, f"n{layer}").items()}
    result = apply_pass(model, a_pass, type(seen())(statistics))
    assert not result.modified
    assert reasons(result).count("no linear reads it") >= 1


@BOTH
def test_a_layer_that_runs_twice_is_parted_and_keeps_the_function(a_pass):
    model = built(albert(2))
    statistics = {name: stats for layer in range(2) for name, stats in seen(layer, f"n{layer}").items()}
    result = apply_pass(model, a_pass, type(seen())(statistics))
    feeds = {"x": np.random.default_rng(3).normal(size=(5, C))}
    np.testing.assert_allclose(
        outputs_of(result.model, feeds)["y"], outputs_of(model, feeds)["y"], rtol=1e-10
    )
    assert result.modified
    assert len(norms_of(result.model)) == 2
