"""What parting channels is for: integer products err less by a stated factor where outliers were planted."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import Pass
from onnxq.passes.migrate.disassemble_channels import DisassembleChannels
from onnxq.passes.migrate.split_channels import SplitChannels
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
from onnxq.runtime.delivery import with_taps
from onnxq.statistics import Statistic, Statistics, TensorStatistics
from tests.graphs import model_of, ops_of, outputs_of
from tests.passes.migrate.families import linears_of

WIDTH, HIDDEN, TOKENS = 64, 128, 400
TOWERS = (5, 40, 77)


def feed_forward() -> tuple[ir.Model, np.ndarray]:
    """A plain feed-forward block, three of whose hidden channels tower 40 times over the others."""
    random = np.random.default_rng(0)
    up = random.normal(size=(WIDTH, HIDDEN)) / 8
    up[:, list(TOWERS)] *= 40
    down = random.normal(size=(HIDDEN, WIDTH)) / 8
    model = model_of(
        "g (float[N,64] x) => (float[N,64] y) { m = MatMul(x, up) n = Relu(m) y = MatMul(n, down) }",
        up=up.astype(np.float32),
        down=down.astype(np.float32),
    )
    return model, random.normal(size=(TOKENS, WIDTH)).astype(np.float32)


def seen(model: ir.Model, x: np.ndarray) -> Statistics:
    """All that passes ask for, of every tensor that a linear reads."""
    names = {str(linear.activation.name) for linear in linears_of(model)}
    found = {"x": x, **outputs_of(with_taps(model, sorted(names - {"x"})), {"x": x})}
    kinds = [Statistic.CHANNEL_EXTREMES, Statistic.ROWS]
    return Statistics({name: TensorStatistics.of(found[name], kinds) for name in names})


def integer_error(model: ir.Model, x: np.ndarray, *passes: Pass) -> tuple[float, ir.Model]:
    """Squared error of the output with wide products in 8 bits, behind `passes`, as part of its square."""
    exact = outputs_of(model, {"x": x})["y"]
    current = model
    for a_pass in (*passes, QuantizeLinears()):
        result = apply_pass(current, a_pass, seen(current, x))
        assert result.modified, a_pass
        current = result.model
    rounded = outputs_of(current, {"x": x})["y"]
    return float(((rounded - exact) ** 2).sum() / (exact**2).sum()), current


@pytest.mark.parametrize(
    ("a_pass", "factor"),
    [
        (SplitChannels(channels=3), 5.0),
        (SplitChannels(form="branch", channels=3), 10.0),
        (SplitChannels(), 5.0),
        (SplitChannels(measured=False), 5.0),
        (SplitChannels(plan=(("n", TOWERS),)), 5.0),
        (DisassembleChannels(ratio=0.5, stagger=True), 3.0),
    ],
    ids=["gather", "branch", "measured", "expected", "planned", "staggered copies"],
)
def test_the_squared_error_falls_by_the_factor(a_pass: Pass, factor: float) -> None:
    """A branch more than a Gather: its outliers have not been through the integer product before."""
    model, x = feed_forward()
    plain, _ = integer_error(model, x)
    better, quantized = integer_error(model, x, a_pass)
    assert plain > factor * better
    assert ops_of(quantized).count("MatMulIntegerToFloat") == 2, "both wide products stay integers"


def test_copies_help_the_channels_beside_the_outliers() -> None:
    """Of the outliers themselves plain copies keep the error, so what the others err is looked at alone."""
    model, x = feed_forward()
    down = model.graph.initializers["down"].const_value.numpy().copy()
    down[list(TOWERS)] *= 1e-3  # what towers hardly matters, and still sets the range
    changed = model_of(
        "g (float[N,64] x) => (float[N,64] y) { m = MatMul(x, up) n = Relu(m) y = MatMul(n, down) }",
        up=model.graph.initializers["up"].const_value.numpy(),
        down=down,
    )
    plain, _ = integer_error(changed, x)
    better, _ = integer_error(changed, x, DisassembleChannels(ratio=0.5))
    assert plain > 5 * better


def test_columns_are_repeated_without_a_node() -> None:
    model, x = feed_forward()
    _, quantized = integer_error(model, x, DisassembleChannels(ratio=0.5, insert_nodes=False))
    assert not {"Gather", "Add", "Sum"} & {*ops_of(quantized)}
