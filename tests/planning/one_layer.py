"""One linear, activations made for each answer, and its plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxq.calibration import collect, open_data
from onnxq.planning.layer_plan import LayerPlan
from onnxq.planning.layers import Plan, plan_layers
from onnxq.planning.settings import PlanSettings, TrialSettings
from onnxq.statistics import Statistic, Statistics
from onnxq.targets import TARGETS
from onnxq.targets.costs import KernelCosts
from tests.graphs import model_of

SETTINGS = PlanSettings(
    TARGETS["x86-vnni"],
    margin=0.0,
    forms=("int8 static", "int8 per-token", "float"),
    tokens=1024,
    exchange=1.0,
    trial=TrialSettings(weight_noise=1.0, rows=1024),
)
"""With the noise of rounding to nearest, which the quantized models of these tests have."""
ALL_FORMS = replace(SETTINGS, forms=("int8 static", "int8 per-token", "int8 blocks", "float"))
WITHOUT_MUL = replace(SETTINGS, insert_nodes=False, exchange=0.3)
CHEAP_SCALES = replace(
    SETTINGS,
    target=replace(SETTINGS.target, costs=KernelCosts(traffic=200_000.0, token_elements=50_000.0)),
    exchange=0.65,
)
"""Of a processor on which scales by token cost little but their calls."""
K, N = 64, 256
Tokens = Callable[[np.random.Generator], np.ndarray]


def even(random: np.random.Generator) -> np.ndarray:
    return random.uniform(-1, 1, size=(24, 8, K))


def towering_tokens(random: np.random.Generator) -> np.ndarray:
    """The first token of each sample is a thousand times the others."""
    tokens = even(random)
    tokens[:, 0] *= 1000
    return tokens


def towering_channels(random: np.random.Generator) -> np.ndarray:
    tokens = even(random)
    tokens[..., [5, 9]] *= 100
    return tokens


def uneven(random: np.random.Generator) -> np.ndarray:
    """No channel stands out; they grow all along."""
    return even(random) * np.geomspace(1, 30, K)


def spiky(random: np.random.Generator) -> np.ndarray:
    """One channel of each token towers over the others, each time another one."""
    tokens = even(random)
    spikes = random.integers(0, K, size=(*tokens.shape[:2], 1))
    np.put_along_axis(tokens, spikes, 60.0, axis=-1)
    return tokens


def weight(columns: int = N) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(K, columns)).astype(np.float32)


def linear(**arrays: np.ndarray) -> ir.Model:
    body = "y = MatMul(x, w)"
    made = model_of(f"g (float[B,8,64] x) => (float[B,8,256] y) {{ {body} }}", **({"w": weight()} | arrays))
    next(iter(made.graph)).name = "layer"
    return made


def gathered(model: ir.Model, x: np.ndarray) -> Statistics:
    source = open_data({"x": x.astype(np.float32)}, model)
    names = [str(value.name) for node in model.graph for value in node.inputs if value.producer()] + ["x"]
    wanted = dict.fromkeys((Statistic.CHANNEL_EXTREMES, Statistic.ROWS), names)
    return collect(model, source, wanted, cache=False)


def planned(model: ir.Model, tokens: Tokens, settings: PlanSettings = SETTINGS) -> Plan:
    return plan_layers(model, gathered(model, tokens(np.random.default_rng(0))), settings)


def only(plan: Plan) -> LayerPlan:
    (layer,) = plan.layers
    return layer
