"""Spellings that are timed against each other compute the same."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from benchmarks.spellings import Question, attention, cached_attention, merged_projections
from tests.graphs import outputs_of

QUESTIONS = {
    "projections": merged_projections(1, 4, 32),
    "attention": attention(2, 8, masked=False, heads=2, size=16),
    "attention, mask": attention(2, 8, masked=True, heads=2, size=16),
    "decode": cached_attention(1, 6),
    "prefill": cached_attention(6, 0),
}
ROUNDED = {"integer products": 0.1}
"""Answers that round, and by how much of the largest number they may differ."""


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_all_answers_are_the_same(question: Question) -> None:
    found = {
        answer: outputs_of(ir.from_proto(question.model(answer)), question.feeds())
        for answer in question.answers
    }
    first = next(iter(found.values()))
    for answer, outputs in found.items():
        assert outputs.keys() == first.keys()
        for name, output in outputs.items():
            worst = abs(output - first[name]).max() / abs(first[name]).max()
            assert worst < ROUNDED.get(answer, 1e-5), (answer, name)
