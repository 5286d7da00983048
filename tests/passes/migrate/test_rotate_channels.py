"""Rotating channels in blocks: exact, shared by all readers, and what it does to towering numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.errors import UsageProblem
from onnxq.ir.mixing import mix_channels, mix_rows, mixing_matrix
from onnxq.passes.migrate.rotate_channels import RotateChannels
from onnxq.passes.quantize.ranges import PerToken
from onnxq.pipeline import apply_pass
from onnxq.runtime import open_session
from tests.graphs import model_of

K, N = 64, 32


@pytest.mark.parametrize("block", [2, 4, 8, 16, 32, 64, 128, 1024])
def test_the_matrices_are_exact_inverses_of_powers_of_two(block: int) -> None:
    matrix = mixing_matrix(block)
    inverse = mix_rows(np.eye(block), block)
    np.testing.assert_array_equal(matrix @ inverse, np.eye(block))
    for each in (matrix, inverse):
        mantissas, _ = np.frexp(np.abs(each))
        assert set(mantissas.reshape(-1)) == {0.5}


def two_readers() -> ir.Model:
    random = np.random.default_rng(0)
    made = model_of(
        f"g (float[B,T,{K}] x) => (float[B,T,{N}] y, float[B,T,{K}] h)"
        " { h = Tanh(x) p = MatMul(h, w) q = MatMul(h, v) y = Add(p, q) }",
        w=random.normal(size=(K, N)).astype(np.float32),
        v=random.normal(size=(K, N)).astype(np.float32),
    )
    return made


def test_all_readers_share_one_rotation_and_others_read_what_they_did() -> None:
    model = two_readers()
    rotated = apply_pass(model, RotateChannels()).model
    assert Counter(node.op_type for node in rotated.graph)["MatMul"] == 3
    x = np.random.default_rng(1).normal(size=(2, 5, K)).astype(np.float32)
    before, after = (open_session(each).run({"x": x}) for each in (model, rotated))
    np.testing.assert_array_equal(after["h"], before["h"])
    np.testing.assert_allclose(after["y"], before["y"], atol=1e-4)


def test_a_linear_that_is_named_alone_is_rotated_alone() -> None:
    model = two_readers()
    first = next(node for node in model.graph if node.op_type == "MatMul")
    first.name = "named"
    rotated = apply_pass(model, RotateChannels(only=("named",))).model
    reads = {
        str(node.inputs[1].name): node.inputs[0].name for node in rotated.graph if "MatMul" in node.op_type
    }
    assert reads["v"] == "h"
    assert sum(name == "h_rotated" for name in reads.values()) == 1


def test_a_lone_towering_number_in_any_channel_no_longer_sets_the_range() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, K)).astype(np.float32)
    rows[np.arange(200), random.integers(0, K, 200)] *= 100
    weight = random.normal(size=(K, N)).astype(np.float32)
    exact = rows @ weight

    def error(activation: np.ndarray, rotated: np.ndarray) -> float:
        return float(np.square(PerToken(8).apply(activation) @ rotated - exact).mean())

    assert error(mix_channels(rows, 32), mix_rows(weight, 32)) < 0.1 * error(rows, weight)


@pytest.mark.parametrize("block", [0, 1, 24, 2048])
def test_blocks_that_no_matrix_fits_are_refused(block: int) -> None:
    with pytest.raises(UsageProblem):
        RotateChannels(block=block)
