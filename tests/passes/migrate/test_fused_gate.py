"""Channels of a feed-forward block whose gate and factor are columns of one linear."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.contract import Pass
from onnxq.passes.migrate.disassemble_channels import DisassembleChannels
from onnxq.passes.migrate.split_channels import SplitChannels
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics
from tests.graphs import model_of
from tests.passes.migrate.families import linears_of, made_by, rewritten

K, HIDDEN, N = 12, 16, 20
CUTS = {
    "halves": "g, f = Split<axis = -1, num_outputs = 2>(p)",
    "sizes": "g, f = Split<axis = 2>(p, sizes)",
    "one beside": "g, rest, f = Split<axis = -1>(p, three)",
    "slices": "g = Slice(p, zero, middle, last) f = Slice(p, middle, end, last)",
}
PATHS = {
    "silu": "s = Sigmoid(g) a = Mul(g, s) n = Mul(a, f)",
    "relu behind": "a = Relu(g) n = Mul(f, a)",
    "gate read twice": "a = Relu(g) n = Mul(a, f) z = Add(g, f)",
    "no gate": "n = Relu(f) z = Exp(g)",
}


def block(cut: str, path: str, *, bias: bool = True, seed: int = 0) -> ir.Model:
    """In double precision, where rounding cannot hide a mistake."""
    random = np.random.default_rng(seed)
    width = 2 * HIDDEN + (5 if cut == "one beside" else 0)
    arrays = {
        "w": random.normal(size=(K, width)),
        "b": random.normal(size=width),
        "v": random.normal(size=(HIDDEN, N)),
        "sizes": np.array([HIDDEN, HIDDEN]),
        "three": np.array([HIDDEN, 5, HIDDEN]),
        "zero": np.array([0]),
        "middle": np.array([HIDDEN]),
        "end": np.array([2 * HIDDEN]),
        "last": np.array([-1]),
    }
    made = "m = MatMul(x, w) p = Add(m, b)" if bias else "p = MatMul(x, w)"
    body = f"{made} {CUTS[cut]} {PATHS[path]} y = MatMul(n, v)"
    outputs = f"double[B,T,{N}] y" + (f", double[B,T,{HIDDEN}] z" if " z = " in body else "")
    used = {name: array for name, array in arrays.items() if f"{name})" in body or f"{name}," in body}
    return model_of(f"g (double[B,T,{K}] x) => ({outputs}) {{ {body} }}", **used)


def seen(seed: int = 0) -> Statistics:
    reach = np.ones(HIDDEN)
    reach[np.random.default_rng(seed).permutation(HIDDEN)[:2]] = 30.0
    return Statistics({"n": TensorStatistics(1, channel=ChannelExtremes(-reach, reach))})


def changed(model: ir.Model, a_pass: Pass, statistics: Statistics) -> ir.Model:
    feeds = {"x": np.random.default_rng(9).normal(size=(2, 3, K))}
    result = rewritten(model, a_pass, statistics, feeds)
    assert result.modified
    return result.model


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cut", CUTS)
def test_a_branch_is_made_of_columns_of_both_parts(cut: str, path: str) -> None:
    model = block(cut, path)
    a_pass = SplitChannels(form="branch", plan=(("n", (3, 11)),), least=8)
    found = changed(model, a_pass, seen())
    assert "Gather" not in made_by(found, a_pass)
    shapes = [linear.weight.shape for linear in linears_of(found)]
    assert shapes.count((K, 2)) == (1 if path == "no gate" else 2)
    assert shapes.count((2, N)) == 1


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(CUTS)),
    st.sampled_from(sorted(PATHS)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, HIDDEN - 1), min_size=1, max_size=HIDDEN - 1, unique=True),
)
def test_any_channels_keep_the_function(
    cut: str, path: str, bias: bool, seed: int, channels: list[int]
) -> None:
    a_pass = SplitChannels(form="branch", plan=(("n", tuple(channels)),), least=8)
    changed(block(cut, path, bias=bias, seed=seed), a_pass, seen(seed))


@pytest.mark.parametrize("path", PATHS)
def test_copies_leave_the_columns_alone_that_are_cut_at_fixed_places(path: str) -> None:
    model = block("halves", path)
    found = changed(model, DisassembleChannels(gain=0.0, least=8), seen())
    assert [linear.columns for linear in linears_of(found)] == [2 * HIDDEN, N]
