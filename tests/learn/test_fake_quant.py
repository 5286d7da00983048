"""Fake quantization: the numbers of QuantizeLinear, and the gradients of LSQ+."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.learn.fake_quant import Step, round_weight, weight_scale
from onnxq.passes.quantize.ranges import params_for
from onnxq.passes.quantize.weights import quantize_weight

NUMBERS = st.floats(-1000, 1000, width=32)


@settings(max_examples=200, deadline=None)
@given(low=NUMBERS, high=NUMBERS, values=st.lists(NUMBERS, min_size=1, max_size=20))
def test_eight_bits_are_those_that_are_written_into_the_model(low, high, values):
    array = np.array(values, np.float32)
    step = Step.holding(min(low, high), max(low, high))
    with np.errstate(over="ignore"):
        wanted = params_for(min(low, high), max(low, high)).apply(array)
    np.testing.assert_array_equal(step(torch.from_numpy(array)).numpy(), wanted)


@settings(max_examples=100, deadline=None)
@given(low=st.floats(-100, 0), high=st.floats(0.001, 100), bits=st.integers(2, 8))
def test_the_range_of_a_step_gives_the_same_step_again(low, high, bits):
    step = Step.holding(low, high, bits)
    again = Step.holding(*step.range, bits)
    assert float(again.zero) == float(step.zero)
    assert float(again.scale) == pytest.approx(float(step.scale), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.sampled_from([7, 8]))
def test_weights_are_rounded_as_the_quantizer_rounds_them(seed, bits):
    weight = np.random.default_rng(seed).normal(size=(12, 5)).astype(np.float32)
    weight[:, 0] = 0
    tensor = torch.from_numpy(weight)
    rounded = round_weight(tensor, weight_scale(tensor, bits), bits)
    np.testing.assert_array_equal(rounded.numpy(), quantize_weight(weight, bits).values)


def test_each_group_of_rows_has_its_own_scale():
    weight = torch.ones(5, 1) * torch.tensor([1.0, 1, 8, 8, 0.5])[:, None]
    assert weight_scale(weight, 4, group=2).flatten().tolist() == pytest.approx([1 / 7, 8 / 7, 0.5 / 7])
    torch.testing.assert_close(round_weight(weight, weight_scale(weight, 4, 2), 4, 2), weight)


def test_the_gradient_of_rounding_is_passed_on_inside_and_stopped_outside():
    step = Step.holding(-1, 1, 4)
    x = torch.tensor([-5.0, -0.5, 0.3, 5.0], requires_grad=True)
    step(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_scale_and_zero_point_have_the_gradients_of_the_paper():
    scale, zero = torch.tensor(0.1, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    x = torch.tensor([0.23, -3.0, 4.0])
    Step(scale, zero, 4)(x).sum().backward()
    factor = 1 / math.sqrt(3 * 15)
    assert float(scale.grad) == pytest.approx(factor * ((2 - 2.3) + (0 - 5) + (15 - 5)), rel=1e-5)
    assert float(zero.grad) == pytest.approx(factor * (-0.1 - 0.1), rel=1e-5)


def test_the_gradient_outside_is_that_of_finite_differences():
    """Where everything is clipped, the imitation is smooth in its scale, and the gradient exact."""
    x = torch.tensor([-30.0, 40.0])

    def of(scale):
        return float(Step(torch.tensor(scale), torch.tensor(3.0), 4)(x).sum())

    scale = torch.tensor(0.5, requires_grad=True)
    Step(scale, torch.tensor(3.0), 4)(x).sum().backward()
    difference = (of(0.51) - of(0.49)) / 0.02
    assert float(scale.grad) * math.sqrt(2 * 15) == pytest.approx(difference, rel=1e-4)


def test_a_tensor_of_zeros_stays_one():
    assert Step.holding(0.0, 0.0)(torch.zeros(3)).tolist() == [0, 0, 0]
