"""Several passes: judged, rolled back, told in order."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.errors import VerificationFailed
from onnxq.pipeline import run
from onnxq.verify import Budget, Feed, Verdict
from tests.graphs import model_of, ops_of, outputs_of
from tests.pipeline.passes import HERE, NEGATIONS, DropDoubleNegation, Renaming, Rounding, X


@pytest.mark.parametrize("verify", ["each", "end"])
def test_pass_that_breaks_its_promise_is_rolled_back(verify):
    model = model_of(NEGATIONS)
    result = run(model, [Renaming(), DropDoubleNegation()], verify=verify, oracle=HERE)
    assert list(result.rolled_back) == ["renaming"]
    assert "output 'y'" in result.rolled_back["renaming"]
    assert ops_of(result.model) == ["Relu"]
    assert {change.owner for change in result.journal} == {"drop-double-negation"}
    assert result.judgement.verdict is Verdict.EQUAL
    assert result.verified
    assert np.array_equal(outputs_of(result.model, {"x": X})["y"], outputs_of(model, {"x": X})["y"])


@pytest.mark.parametrize("verify", ["each", "end"])
def test_strict_stops_at_a_broken_promise(verify):
    with pytest.raises(VerificationFailed):
        run(model_of(NEGATIONS), [Renaming()], verify=verify, strict=True, oracle=HERE)


def test_unverified_result_says_so():
    result = run(model_of(NEGATIONS), [Renaming()], verify="never")
    assert result.judgement is None
    assert not result.verified
    unjudged = run(
        model_of(
            "g (float[n,4] x) => (float[n,4] y) {r = RandomNormalLike(x) a = Neg(x) b = Neg(a) y = Add(r, b)}"
        ),
        [DropDoubleNegation()],
        oracle=HERE,
    )
    assert unjudged.judgement.verdict is Verdict.CANNOT_JUDGE
    assert not unjudged.verified


def test_exact_passes_are_judged_on_both_sides_of_a_lossy_one():
    model = model_of(NEGATIONS)
    result = run(
        model, [DropDoubleNegation(), Rounding("Relu", "Ceil"), Renaming("Ceil", "Floor")], oracle=HERE
    )
    assert list(result.rolled_back) == ["renaming"]
    assert ops_of(result.model) == ["Ceil"]


def test_lossy_pass_is_held_to_the_budget():
    model = model_of(NEGATIONS)
    feeds = [Feed("real", {"x": X})]
    kept = run(model, [Rounding("Relu", "Abs")], feeds=feeds, budget=Budget(), oracle=HERE)
    assert kept.results[0].modified
    undone = run(model, [Rounding("Relu", "Abs")], feeds=feeds, budget=Budget(sqnr_db=20), oracle=HERE)
    assert "SQNR" in undone.rolled_back["rounding"]


def test_progress_is_told_in_order():
    steps = []
    run(model_of(NEGATIONS), [Renaming("Tanh"), DropDoubleNegation()], oracle=HERE, progress=steps.append)
    assert [(step.number, step.total, step.name, step.action) for step in steps] == [
        (1, 2, "renaming", "rewrite"),
        (2, 2, "drop-double-negation", "rewrite"),
        (2, 2, "drop-double-negation", "verify"),
        (3, 2, "", "verify"),
    ]


def test_same_passes_give_the_same_bytes():
    results = [
        run(model_of(NEGATIONS), [DropDoubleNegation(), Renaming("Relu", "Relu")], verify="never")
        for _ in "ab"
    ]
    first, second = (ir.to_proto(result.model).SerializeToString(deterministic=True) for result in results)
    assert first == second
