"""The proofs have teeth: every pass is seen at work, and passes that err are caught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from onnxq.contract import AnyPass, Pass
from onnxq.errors import PassFailed
from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.pipeline import apply_pass
from tests.families.sampling import pairwise
from tests.families.spec import Spec
from tests.property.examination import examine
from tests.property.mutants import SLIPS, Mutant, Slip
from tests.property.subjects import EAGER, EXACT, Subject

ENOUGH = 3
"""Specs of the sample on which each pass must find something to do."""
NOTHING_TO_DO = {
    "drop-casts": "float32 families have no casts to float32",
}
NAMES = [f"{each.name}" for each in EXACT]


@cache
def subject_of(spec: Spec) -> Subject:
    return Subject(spec)


def fired_on(a_pass: AnyPass) -> Iterator[Subject]:
    for spec in pairwise():
        subject = subject_of(spec)
        if spec.dtype == "float32" and apply_pass(subject.model, a_pass, subject.statistics).modified:
            yield subject
