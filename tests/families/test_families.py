"""The models that the proofs rest on: they run, and each spelling says the same."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from tests.families.build import build, feeds_for
from tests.families.sampling import pairwise
from tests.families.spec import LEVELS, Spec, is_possible
from tests.graphs import outputs_of

SPECS = pairwise()


def test_every_two_levels_meet_if_they_can():
    met = {
        ((one, getattr(spec, one)), (other, getattr(spec, other)))
        for spec in SPECS
        for one in LEVELS
        for other in LEVELS
    }
    for one, ones in LEVELS.items():
        for other, others in LEVELS.items():
            if one < other:
                for pair in [((one, first), (other, second)) for first in ones for second in others]:
                    assert pair in met or not _can_meet(pair), pair


def _can_meet(pair) -> bool:
    """Whether the two go together with the plainest other fields, one of them changed."""
    plain = Spec(opset=23, head="scores")
    around = [{}, *({name: level} for name, levels in LEVELS.items() for level in levels)]
    return any(is_possible(replace(plain, **(more | dict(pair)))) for more in around)


def test_models_run_and_stay_finite():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spec in SPECS:
            found = outputs_of(build(spec), feeds_for(spec))
            for name, array in found.items():
                assert np.isfinite(array).all(), f"{spec}: {name}"
                assert array.std() > 1e-3, f"{spec}: {name} says nothing"
