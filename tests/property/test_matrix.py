"""Every exact pass on every family in every spelling: nothing changes but the graph."""

from __future__ import annotations

import pytest

from onnxq.pipeline import run
from onnxq.verify import Verdict
from tests.families.sampling import pairwise
from tests.families.spec import Spec
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
