"""The error that is foretold of a form, against the one that it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import collect, open_data
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import run
from onnxq.planning.front import Point
from onnxq.planning.layers import Plan, plan_layers
from onnxq.runtime import open_session
from onnxq.statistics import Statistics
from tests.planning.one_layer import (
    ALL_FORMS,
    SETTINGS,
    K,
    N,
    Tokens,
    even,
    gathered,
    linear,
    only,
    planned,
    spiky,
    towering_channels,
    towering_tokens,
    uneven,
    weight,
)


def quantized(model: ir.Model, plan: Plan, statistics: Callable[..., Statistics]) -> ir.Model:
    blocks = plan.names("int8 blocks")
    own = [QuantizeBlocks(only=blocks)] if blocks else []
    skip = (*plan.names("float"), *blocks)
    last = QuantizeLinears(skip=skip, per_token=plan.names("int8 per-token"))
    return run(model, [*plan.exact_passes(), last, *own], gather=statistics, verify="never").model


@pytest.mark.parametrize("tokens", [even, towering_tokens, towering_channels, uneven, spiky])
def test_the_error_foretold_is_the_error_made(tokens: Tokens) -> None:
    """Of every option, against the quantized model itself as the runtime runs it."""
    model, x = linear(), tokens(np.random.default_rng(0)).astype(np.float32)
    source = open_data({"x": x}, model)
    plan = planned(model, tokens, ALL_FORMS)
    exact = (x.astype(np.float64) @ weight()).reshape(-1, N)
    for place in range(len(plan.front)):
        this = plan.at(place, "")
        layer = only(this)
        if layer.form == "float":
            continue
        made = quantized(model, this, lambda state, wanted: collect(state, source, wanted, cache=False))
        noise = open_session(made).run({"x": x})["y"].reshape(-1, N) - exact
        by_token = (noise**2).sum(axis=1) / (exact**2).sum(axis=1)
        found = -10 * np.log10(by_token.mean())
        assert layer.sqnr_db == pytest.approx(found, abs=1.0), str(layer.option)


def test_outliers_as_several_copies_err_as_foretold_and_the_pass_makes_them() -> None:
    model, x = linear(), towering_channels(np.random.default_rng(0)).astype(np.float32) / 10
    source = open_data({"x": x}, model)
    plan = plan_layers(model, gathered(model, x), SETTINGS)
    (name, found) = next(iter(plan.candidates.items()))
    place = next(place for place, each in enumerate(found.measured) if each.option.copied)
    copied, plain = found.measured[place], found.measured[0]
    assert copied.error < plain.error / 10
    assert copied.cost > plain.cost
    layer = found.layer(only(plan), Point(0.0, 0.0, {name: place}))
    made = quantized(model, Plan((layer,)), lambda state, wanted: collect(state, source, wanted, cache=False))
    (product,) = (node for node in made.graph if node.op_type == "MatMulIntegerToFloat")
    assert product.inputs[1].shape[0] == K + copied.option.copied
    exact = (x.astype(np.float64) @ weight()).reshape(-1, N)
    noise = open_session(made).run({"x": x})["y"].reshape(-1, N) - exact
    by_token = (noise**2).sum(axis=1) / (exact**2).sum(axis=1)
    assert layer.sqnr_db == pytest.approx(-10 * np.log10(by_token.mean()), abs=1.0)


def test_a_massive_token_does_not_hide_the_others() -> None:
    """Weighed by energy, the error of the small tokens would not show."""
    static = next(
        each for each in only(planned(linear(), towering_tokens)).considered if each.option == "int8 static"
    )
    assert static.sqnr_db < 8


def test_seven_bits_and_margins_are_measured_as_such() -> None:
    seven = replace(SETTINGS, target=replace(SETTINGS.target, weight_bits=7))
    wide = replace(SETTINGS, margin=1.0)
    settings = (replace(each, forms=("int8 static", "float")) for each in (SETTINGS, seven, wide))
    plain, *worse = (only(planned(linear(), even, each)).sqnr_db for each in settings)
    assert plain is not None
    assert all(each is not None and each < plain for each in worse)
