"""Every exact pass on every family in every spelling: nothing changes but the graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import AnyPass
from onnxq.pipeline import apply_pass, run
from onnxq.verify import Verdict
from tests.families.sampling import pairwise
from tests.families.spec import Spec
from tests.property.doubled import Unknown, computed_in_float64, doubled
from tests.property.examination import ORACLE, examine, interface_complaints, number_complaints
from tests.property.subjects import EXACT, Subject

OFTEN = 24
"""The first of the sample meet seven tenths of all pairs of levels; the others run with ``-m slow``."""

SPECS = [
    pytest.param(spec, id=str(spec), marks=[] if number < OFTEN else pytest.mark.slow)
    for number, spec in enumerate(pairwise())
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_exact_pass_changes_nothing_but_the_graph(spec: Spec) -> None:
    subject = Subject(spec)
    found = {f"{each}": examine(subject, each).complaints for each in subject.passes}
    assert {name: complaints for name, complaints in found.items() if complaints} == {}


@pytest.mark.parametrize("spec", SPECS)
def test_all_exact_passes_together_change_nothing_but_the_graph(spec: Spec) -> None:
    subject = Subject(spec)
    result = run(
        subject.model,
        EXACT,
        gather=subject.gather,
        verify="end",
        oracle=ORACLE,
        feeds=subject.feeds,
        host=subject.host,
    )
    assert result.rolled_back == {}
    if any(each.modified for each in result.results):  # nobody asks the oracle about what was left alone
        assert result.judgement.verdict is Verdict.EQUAL, result.judgement.reason
    assert [*interface_complaints(subject.model, result.model, raising=True)] == []
    assert [*number_complaints(subject, subject.computed(result.model))] == []


IN_FLOAT64 = 1e-11
"""How far an output may be off in float64, as part of its largest element."""
SPELLED = {
    "norm": {"skip": "script", "simplified": "script"},
    "activation": {"contrib-gelu": "erf", "contrib-silu": "silu"},
    "linear": {"contrib": "matmul"},
    "attention": {"contrib": "script"},
}
"""Instead of operators that the reference of ONNX lacks: the same spelled out."""
ROUGH = {"recompose-gelu": 1e-7, "fuse-gelu": 1e-7}
"""The same of passes that put a number, such as √2, where the model has it rounded to float32."""


def spelled_out(spec: Spec) -> Spec:
    instead = {name: other.get(getattr(spec, name)) for name, other in SPELLED.items()}
    return replace(spec, **{name: level for name, level in instead.items() if level is not None})


@pytest.mark.parametrize("spec", [each for each in SPECS if each.values[0].dtype == "float32"])
def test_in_float64_there_is_nothing_left_but_the_last_bits(spec: Spec) -> None:
    """What the bounds of float32 may hide, a wrong epsilon or a small shift that got lost, shows here."""
    subject = Subject(spelled_out(spec))
    wide = ir.from_proto(doubled(subject.model))
    try:
        usual = [computed_in_float64(ir.to_proto(wide), feed.arrays) for feed in subject.feeds]
    except Unknown as lacking:
        pytest.skip(f"the reference of ONNX has no {lacking}")
    assert {
        f"{each}": off for each in subject.passes if (off := _off_in_float64(subject, each, wide, usual))
    } == {}


def _off_in_float64(
    subject: Subject, a_pass: AnyPass, wide: ir.Model, usual: list[dict[str, np.ndarray]]
) -> dict[str, float]:
    """The outputs that the pass changes by more than the last bits; none if it leaves the model alone."""
    result = apply_pass(wide, a_pass, subject.statistics)
    if not result.changes:
        return {}
    after = ir.to_proto(result.model)
    found = {}
    for feed, old in zip(subject.feeds, usual, strict=True):
        try:
            new = computed_in_float64(after, feed.arrays)
        except Unknown:
            return {}
        for name, array in old.items():
            off = float(np.abs(array - new[name]).max() / np.abs(array).max())
            if not off <= ROUGH.get(a_pass.name, IN_FLOAT64):
                found[f"{name} on {feed.label}"] = off
    return found
