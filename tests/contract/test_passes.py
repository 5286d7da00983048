"""What every pass owes, run over every registered pass and every example it brings."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import AnyPass, Contract, Example, Pass
from onnxq.passes import registry
from onnxq.pipeline import PassResult, apply_pass, broken_promise
from onnxq.verify import FeedSettings, OracleSettings, Verdict, judge, make_feeds
from onnxq.verify.feeds import sizes_of
from onnxq.verify.hosts import InProcess
from tests.contract.registered import BROKEN, PASSES, parameters
from tests.contract.variants import VARIANTS
from tests.graphs import outputs_of

QUICK = OracleSettings(seeds=2, isolated=False)
HOST = InProcess()
fires = pytest.mark.parametrize(("kind", "example"), parameters("fires"))
holds = pytest.mark.parametrize(("kind", "example"), parameters("holds"))
each_pass = pytest.mark.parametrize("kind", PASSES.values(), ids=PASSES)


def applied(kind: type[AnyPass], model: ir.Model, example: Example) -> PassResult:
    result = apply_pass(model, kind(), example.statistics)
    assert not result.skipped
    assert result.settled, "the pass undoes and redoes its own work"
    return result


def digest(model: ir.Model) -> str:
    return hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest()


def assert_contract(kind: type[AnyPass], before: ir.Model, after: ir.Model) -> None:
    assert broken_promise(before, after, kind()) == ""
    if kind.contract is Contract.LOSSY:
        for feed in make_feeds(before, sizes_of(before)[0], FeedSettings(seeds=1, corners=False)):
            old, new = outputs_of(before, feed.arrays), outputs_of(after, feed.arrays)
            assert [(name, array.shape, array.dtype) for name, array in old.items()] == [
                (name, array.shape, array.dtype) for name, array in new.items()
            ]
        return
    judgement = judge(before, after, kind.contract, settings=QUICK, host=HOST)
    assert judgement.verdict is Verdict.EQUAL, judgement.reason


def test_every_pass_is_registered_and_every_registered_pass_is_written():
    assert not BROKEN
    assert dict(registry()) == PASSES


@each_pass
def test_brings_enough_evidence(kind):
    examples = kind.examples()
    enough = 3 if issubclass(kind, Pass) else 1
    assert len(examples.fires) >= enough
    assert len(examples.holds) >= enough


@each_pass
def test_states_its_law(kind):
    assert "=>" in (sys.modules[kind.__module__].__doc__ or "")[:400]


@fires
def test_fires_within_its_contract_and_is_idempotent(kind, example):
    before = example.model()
    untouched = digest(before)
    result = applied(kind, before, example)
    assert result.modified
    assert result.changes
    assert_contract(kind, before, result.model)
    assert digest(before) == untouched, "the model that was given is not to be changed"
    again = applied(kind, result.model, example)
    assert not again.changes, f"a second run changes {again.changes}"


@holds
def test_holds_and_says_why(kind, example):
    before = example.model()
    result = applied(kind, before, example)
    assert not result.modified
    assert digest(result.model) == digest(before)
    if example.reason:
        assert any(example.reason in reject.reason for reject in result.rejects), result.rejects
    else:
        assert not result.rejects
    assert all(reject.node for reject in result.rejects) or not issubclass(kind, Pass)


@fires
def test_commutes_with_saving(kind, example):
    before = example.model()
    result = applied(kind, before, example)
    reread = ir.from_proto(ir.to_proto(before))
    assert digest(applied(kind, reread, example).model) == digest(result.model)
    once_more = ir.from_proto(ir.to_proto(result.model))
    assert digest(once_more) == digest(result.model)


@fires
@pytest.mark.parametrize("surroundings", list(VARIANTS)[1:])
def test_keeps_its_contract_in_other_surroundings(kind, example, surroundings):
    before = VARIANTS[surroundings](example.model())
    result = applied(kind, before, example)
    if result.modified:
        assert_contract(kind, before, result.model)
    assert not applied(kind, result.model, example).changes


@fires
def test_fires_inside_a_branch(kind, example):
    if not issubclass(kind, Pass) or kind.contract is Contract.LOSSY:
        pytest.skip("promises nothing about branches")
    result = applied(kind, VARIANTS["in a branch"](example.model()), example)
    assert result.modified, result.rejects


@fires
def test_other_readers_of_a_constant_see_the_same_numbers(kind, example):
    before = VARIANTS["with other readers"](example.model())
    after = applied(kind, before, example).model
    for feed in make_feeds(before, sizes_of(before)[0], FeedSettings(seeds=1, corners=False)):
        old, new = outputs_of(before, feed.arrays), outputs_of(after, feed.arrays)
        for name in old:
            if name.startswith("reader_"):
                assert np.array_equal(old[name], new[name], equal_nan=old[name].dtype.kind == "f")


@fires
def test_overridden_constants_reach_the_output(kind, example):
    before = VARIANTS["with overridable constants"](example.model())
    if kind.contract is Contract.LOSSY:
        pytest.skip("judged on numbers, which a lossy pass changes")
    after = applied(kind, before, example).model
    (feed,) = make_feeds(before, sizes_of(before)[0], FeedSettings(seeds=1, corners=False))
    override = {
        value.name: np.asarray(value.const_value.numpy() * 2, value.const_value.numpy().dtype)
        for value in before.graph.inputs
        if value.is_initializer() and value.dtype is not None and value.dtype.is_floating_point()
    }
    old, new = (outputs_of(model, {**feed.arrays, **override}) for model in (before, after))
    for name in old:
        if old[name].dtype.kind == "f":
            np.testing.assert_allclose(
                new[name], old[name], rtol=1e-4, atol=1e-5 * float(np.abs(old[name]).max(initial=1))
            )


def test_bytes_do_not_depend_on_the_seed_of_hashing():
    found = [_digests_under(seed) for seed in ("1", "2")]
    assert len(found[0]) == sum(len(kind.examples().fires) for kind in PASSES.values())
    assert found[0] == found[1]


def _digests_under(seed: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.test_passes"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


if __name__ == "__main__":
    for each in PASSES.values():
        for one in each.examples().fires:
            sys.stdout.write(digest(apply_pass(one.model(), each(), one.statistics).model) + "\n")
