"""Ranges chosen by the output of the network: when they are, and what is never made worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxq.calibration import collect, open_data
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.passes.quantize.ranges import params_for
from onnxq.pipeline import run
from onnxq.planning.adjustable import AdjustableModel
from onnxq.planning.clipping import Clipping, ClippingSettings, coarse_clipping, fine_clipping
from onnxq.runtime import open_session
from onnxq.statistics import Statistic, Statistics
from tests.graphs import model_of

K, N = 32, 24
SETTINGS = ClippingSettings(samples=16, patience=20, trials=60)
FORMS = pytest.mark.parametrize(("form", "bits"), [("kernel", 8), ("kernel", 4), ("qdq", 8), ("qdq", 5)])


def network(*, dead: bool = False):
    random = np.random.default_rng(0)
    first, second = (random.normal(size=shape).astype(np.float32) / 6 for shape in ((K, N), (N, K)))
    if dead:
        first[3] = 0
    body = "h = MatMul(x, first) a = Relu(h) m = MatMul(a, second) y = Tanh(m)"
    text = f"g (float[B,S,{K}] x) => (float[B,S,{K}] y) {{ {body} }}"
    return model_of(text, first=first, second=second)


def data(model, *, odd: bool, seed: int = 1):
    """16 samples of 10 tokens; with a few that tower over the others, if `odd`."""
    tokens = np.random.default_rng(seed).uniform(-1, 1, size=(16, 10, K)).astype(np.float32)
    if odd:
        tokens[::8, 0, 5] = 60.0
    return open_data({"x": tokens}, model)


def quantized(model, source, *, form: str = "kernel", bits: int = 4, ranges=()):
    a_pass = QuantizeLinears(form=form, activation_bits=bits, ranges=ranges)
    return run(model, (a_pass,), gather=lambda m, w: collect(m, source, w), verify="never").model


def statistics_of(model, source) -> Statistics:
    names = ["x", "a"]
    kinds = (Statistic.TOKEN_EXTREMES, Statistic.CHANNEL_EXTREMES, Statistic.ROWS)
    return collect(model, source, dict.fromkeys(kinds, names))


@FORMS
def test_ranges_fed_are_ranges_built_in(form, bits):
    model = network()
    source = data(model, odd=False)
    ranges = {"x": (-0.5, 0.75), "a": (0.0, 0.25)}
    built_in = quantized(
        model, source, form=form, bits=bits, ranges=tuple((name, *ends) for name, ends in ranges.items())
    )
    adjustable = AdjustableModel(quantized(model, source, form=form, bits=bits))
    assert set(adjustable.quantizers) == {"x", "a"}
    feeds = next(iter(source))
    expected = open_session(built_in).run(feeds)["y"]
    np.testing.assert_allclose(adjustable.run(feeds, ranges)["y"], expected, rtol=1e-4, atol=1e-5)
    own = open_session(quantized(model, source, form=form, bits=bits)).run(feeds)["y"]
    np.testing.assert_allclose(adjustable.run(feeds, {})["y"], own, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - own).max() > 1e-3


def test_the_ranges_told_are_those_of_the_model():
    model = network()
    source = data(model, odd=False)
    found = AdjustableModel(quantized(model, source)).ranges
    seen = statistics_of(model, source)
    for name in ("x", "a"):
        grid = params_for(seen[name].low, seen[name].high, 4)
        assert found[name] == pytest.approx((grid.low, grid.high))


def test_odd_tokens_are_clipped_and_even_ones_are_not():
    model = network()
    for odd in (True, False):
        source = data(model, odd=odd)
        found = coarse_clipping(
            model, quantized(model, source), source, statistics_of(model, source), SETTINGS
        )
        assert set(found.ranges) == {"x", "a"}
        assert found.after <= found.before
        assert found.error_by_alpha[1.0] == pytest.approx(found.before, rel=0.05)
        assert 0.5 < found.ranges["x"][1] < 2
        assert (found.alpha < 1) == (found.after < found.before)


def test_a_dead_channel_neither_sets_the_range_nor_hides_it():
    model = network(dead=True)
    source = data(model, odd=False)
    towering = open_data({"x": np.concatenate([feeds["x"] for feeds in source])}, model)
    feeds = [feed["x"].copy() for feed in towering]
    for each in feeds:
        each[..., 3] *= 100
    source = open_data({"x": np.concatenate(feeds)}, model)
    found = coarse_clipping(model, quantized(model, source), source, statistics_of(model, source), SETTINGS)
    assert -1.2 < found.ranges["x"][0] < found.ranges["x"][1] < 1.2


def test_the_fine_stage_never_ends_worse_and_starts_where_it_is_told():
    model = network()
    source = data(model, odd=False)
    plain = quantized(model, source)
    alone = fine_clipping(model, plain, source, settings=SETTINGS)
    assert alone.after <= alone.before
    wide = Clipping(1.0, {"x": (-2.0, 2.0), "a": (0.0, 4.0)})
    started = fine_clipping(model, plain, source, wide, SETTINGS)
    assert started.before > 1.5 * alone.before
    assert started.after < 0.7 * started.before
    assert started.ranges["x"][1] < 2


def test_what_helps_on_half_of_the_data_alone_is_not_done():
    """With no gain that is large enough, everything stays."""
    model = network()
    source = data(model, odd=True)
    greedy = replace(SETTINGS, gain=0.999)
    plain = quantized(model, source)
    found = coarse_clipping(model, plain, source, statistics_of(model, source), greedy)
    assert found.alpha == 1.0
    assert found.ranges == AdjustableModel(plain).ranges


def test_trials_are_bounded():
    model = network()
    source = data(model, odd=True)
    told = []
    few = replace(SETTINGS, trials=5)
    fine_clipping(model, quantized(model, source), source, settings=few, report=lambda *at: told.append(at))
    assert told[-1] == (5, 5)
    assert len(told) <= 5
