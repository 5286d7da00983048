"""Finding the rewrite, and the value, that went wrong."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.contract import Contract
from onnxq.verify import Feed, OracleSettings, State, divergences, first_different
from tests.graphs import model_of

HERE = OracleSettings(seeds=1, sizes=1, isolated=False, optimised=False)


def chain(*ops: str):
    names = ["x", *(f"v{index}" for index in range(1, len(ops))), "y"]
    body = " ".join(f"{new} = {op}({old})" for op, old, new in zip(ops, names, names[1:], strict=False))
    return model_of(f"g (float[n,4] x) => (float[n,4] y) {{ {body} }}")


@pytest.mark.parametrize("bad", range(5))
def test_first_bad_rewrite_is_found(bad):
    original = chain("Neg", "Relu")
    states = [State(f"pass-{n}", chain("Neg", "Relu" if n < bad else "Abs")) for n in range(5)]
    state, judgement = first_different(original, states, settings=HERE)
    assert state.name == f"pass-{bad}"
    assert "output 'y'" in judgement.reason


def test_nothing_is_found_where_nothing_is_wrong():
    original = chain("Neg", "Relu")
    assert first_different(original, [State("fine", chain("Neg", "Relu"))], settings=HERE) is None
    assert first_different(original, [], settings=HERE) is None


def test_promises_on_the_way_add_up():
    original = model_of("g (float[n,4] x) => (float[n,4] y) <float z = {0}> { y = Add(x, z) }")
    states = [
        State("drop-zero", chain("Identity"), Contract.REASSOCIATES),
        State("copy", chain("Identity"), Contract.BITWISE),
    ]
    assert first_different(original, states, settings=HERE) is None
    assert first_different(original, states[1:], settings=OracleSettings(isolated=False))[0].name == "copy"


def test_values_that_diverge_are_named_in_order():
    feed = Feed("one", {"x": np.array([[1, -2, 3, -4]], np.float32)})
    before, after = chain("Neg", "Abs", "Neg", "Exp"), chain("Neg", "Relu", "Neg", "Exp")
    assert [found.value for found in divergences(before, after, feed)] == ["v2", "v3", "y"]
    assert divergences(before, after, feed)[0].node == "v2"
    assert divergences(before, before.clone(), feed) == []


def test_small_divergences_can_be_overlooked():
    feed = Feed("one", {"x": np.array([[1, 2, 3, 4]], np.float32)})
    before = model_of("g (float[n,4] x) => (float[n,4] y) <float c = {1.0}> { h = Mul(x, c) y = Neg(h) }")
    after = model_of("g (float[n,4] x) => (float[n,4] y) <float c = {1.001}> { h = Mul(x, c) y = Neg(h) }")
    assert len(divergences(before, after, feed)) == 2
    assert divergences(before, after, feed, above=0.01) == []
