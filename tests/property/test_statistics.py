"""Whatever statistics say, right or wrong, the exact passes that read them keep the function."""

from __future__ import annotations

from dataclasses import dataclass, replace

import hypothesis.strategies as st
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import event, given, settings

from onnxq.contract import Pass
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import constant_of
from onnxq.pipeline import apply_pass
from onnxq.statistics import ChannelExtremes, Statistic, Statistics, TensorStatistics
from tests.families.sampling import pairwise
from tests.families.spec import LEVELS, Dims, Spec
from tests.property.examination import BOUND, constant_complaints, interface_complaints
from tests.property.subjects import EAGER, EXACT, Subject

READERS = [
    each
    for each in [*EXACT, *EAGER]
    if isinstance(each, Pass) and each.needs.statistics == frozenset({Statistic.CHANNEL_EXTREMES})
    if getattr(each, "search", "closed") == "closed"
]
"""Passes that read nothing but extremes, so that these can be made up."""


def is_plain(spec: Spec) -> bool:
    """Whether its norms and linears are ones that the passes know."""
    return spec.norm not in ("skip", "tensorflow") and spec.linear != "contrib"


FEW = settings.get_profile("few")
FAMILIES = [
    next(spec for spec in pairwise() if is_plain(spec) and (spec.family, spec.dtype) == (family, dtype))
    for family in LEVELS["family"]
    for dtype in ("float32", "float16")
]
SUBJECTS = [Subject(replace(spec, dims=Dims(layers=2))) for spec in FAMILIES]

REACHES = st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0, 30.0])
"""Of a usual channel; a few reach forty times as far."""
CENTRES = st.sampled_from([0.0, 0.0, 1e-3, 0.1, 1.0, 10.0])
"""How far from zero the middles of channels lie."""


@dataclass(frozen=True)
class Fiction:
    """Statistics that have nothing to do with what the model computes.

    Attributes:
        statistics: Extremes of activations.
        centre: How far from zero the middles of channels lie; a shift that far costs as many last bits.
    """

    statistics: Statistics
    centre: float


@st.composite
def fictions(draw: st.DrawFn, model: ir.Model) -> Fiction:
    """Extremes of every activation of norms and linears."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach, centre = draw(REACHES), draw(CENTRES)
    odd = draw(st.sampled_from([0.0, 0.05, 0.5]))
    found = {}
    for name, channels in activations_of(model).items():
        ranges = reach * random.random(channels) * np.where(random.random(channels) < odd, 40.0, 1.0)
        middles = centre * random.standard_normal(channels)
        found[name] = TensorStatistics(1, channel=ChannelExtremes(middles - ranges, middles + ranges))
    return Fiction(Statistics(found), centre)


def activations_of(model: ir.Model) -> dict[str, int]:
    """Names of outputs of norms and inputs of linears, and their channels."""
    found: dict[str, int] = {}
    for node in model.graph:
        if isinstance(norm := find_norm(node), Norm):
            found[str(norm.output.name)] = norm.channels
        if isinstance(linear := find_linear(node), Linear):
            found[str(linear.activation.name)] = linear.channels
    return found


@settings(FEW, max_examples=40)
@given(st.data(), st.sampled_from(SUBJECTS), st.sampled_from(READERS))
def test_made_up_statistics_keep_the_function(data: st.DataObject, subject: Subject, a_pass: Pass) -> None:
    told = data.draw(fictions(subject.model))
    result = apply_pass(subject.model, a_pass, told.statistics)
    assert result.settled
    if not result.modified:
        return
    event(a_pass.name)
    assert [*interface_complaints(subject.model, result.model, raising=False)] == []
    assert [*constant_complaints(subject.model, result)] == []
    assert not apply_pass(result.model, a_pass, told.statistics).changes
    for old, new in zip(subject.outputs, subject.computed(result.model), strict=True):
        for name, array in old.items():
            bound = BOUND[subject.spec.dtype] * (1 + 2 * told.centre) * float(np.abs(array).max())
            off = float(np.abs(array.astype(np.float64) - new[name]).max())
            assert off <= bound, f"{a_pass}, {name!r}: off by {off:.3g}, where {bound:.3g} is allowed"


EVERYWHERE = ("permute-residual", "split-groups")
"""A permutation of the stream goes through all layers; groups of a given size need no statistics."""
LOCAL = [each for each in READERS if each.name not in EVERYWHERE]


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda each: f"{each.spec.family}-{each.spec.dtype}")
def test_no_constant_of_another_layer_is_touched(subject: Subject) -> None:
    """With statistics of the first layer alone, every node of another reads what it read."""
    first = ("decoder.layers.0." if subject.spec.family.endswith("crossed") else "layers.0.",)
    random = np.random.default_rng(0)
    told = {}
    for name, channels in activations_of(subject.model).items():
        if name.startswith(first) and not name.startswith(HANDED_ON):
            reach = np.where(random.random(channels) < 0.2, 20.0, 1.0) * random.random(channels)
            middle = random.standard_normal(channels)
            told[name] = TensorStatistics(1, channel=ChannelExtremes(middle - reach, middle + reach))
    fired = 0
    for a_pass in LOCAL:
        result = apply_pass(subject.model, a_pass, Statistics(told))
        fired += result.modified
        old, new = (constants_elsewhere(model, first) for model in (subject.model, result.model))
        assert old == new, f"{a_pass}: {[place for place in old if old[place] != new.get(place)]}"
    assert fired >= 3


HANDED_ON = ("layers.0.norm2", "decoder.layers.0.norm3")
"""Norms at the end of a post-LN layer, which the next layer reads."""


def constants_elsewhere(model: ir.Model, scope: tuple[str, ...]) -> dict[tuple[str, int], bytes]:
    """The constants that nodes outside of `scope` read, by node and input."""
    return {
        (str(node.name), index): array.tobytes()
        for node in model.graph
        if not str(node.name).startswith(scope) and node.metadata_props.get("onnxq.pass") is None
        for index, value in enumerate(node.inputs)
        if (array := constant_of(value)) is not None
    }
