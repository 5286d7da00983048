"""Which numbers and operators `optimize` writes, by target, format, bits and shapes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxq.demo
from onnxq.api import optimize
from onnxq.errors import UsageProblem
from onnxq.ir.walk import constant_of, nodes
from onnxq.recipe import OptimizeSettings
from onnxq.targets import TARGETS
from onnxq.targets.costs import KernelCosts
from tests.api import models
from tests.api.optimized import QUICK
from tests.graphs import model_of


@pytest.mark.parametrize("name", ["arm-dot", "qdq", "qdq-symmetric"])
def test_activations_are_of_the_type_that_the_target_wants(name: str) -> None:
    settings = OptimizeSettings(**(QUICK | {"target": name}))
    result = optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings)
    rounded = [node for node in nodes(result.model) if node.op_type == "QuantizeLinear"]
    zeros = [constant_of(node.inputs[2]) for node in rounded]
    assert len(zeros) >= 6
    assert {str(zero.dtype) for zero in zeros} == {TARGETS[name].activation_type}
    assert all(zero == 0 for zero in zeros) == TARGETS[name].activation_symmetric
    assert {node.domain for node in nodes(result.model)} <= {"", "com.microsoft"}
    assert ({node.domain for node in nodes(result.model)} == {""}) == (TARGETS[name].format == "qdq")
    assert result.report.fidelity[0].cosine_min > 0.99


def test_four_bits_are_chosen_by_bytes_and_stay_close() -> None:
    settings = OptimizeSettings(**QUICK, target="x86-vnni", weights="int4")
    result = optimize(onnxq.demo.model_path(), onnxq.demo.load_calibration(), settings=settings)
    forms = {row.decision.partition(",")[0] for row in result.report.layers}
    assert "int4 blocks" in forms
    assert forms <= {"int4 blocks", "int8 blocks", "float"}
    bits = [node.attributes["bits"].value for node in nodes(result.model) if node.op_type == "MatMulNBits"]
    assert sorted(bits) == sorted(
        int(row.decision[3]) for row in result.report.layers if row.decision != "float"
    )
    assert result.report.fidelity[0].cosine_mean > 0.98
    assert 'weights = "int4"' in result.report.recipe


@pytest.mark.parametrize("given", [{"format": "qdq"}, {"target": "qdq"}])
def test_four_bits_are_refused_where_nothing_multiplies_them(given: dict[str, str]) -> None:
    with pytest.raises(UsageProblem) as problem:
        OptimizeSettings(weights="int4", **given)  # type: ignore[arg-type]
    assert problem.value.slug == "int4-as-qdq"


@pytest.mark.parametrize(
    "form", [{"format": "qdq", "target": "x86-vnni"}, {"format": "kernel", "target": "qdq"}]
)
def test_qdq_is_standard_onnx_alone(form: dict[str, str]) -> None:
    settings = OptimizeSettings(**QUICK, **form)
    result = optimize(onnxq.demo.model_path(), onnxq.demo.load_calibration(), settings=settings)
    assert {node.domain for node in nodes(result.model)} == {""}
    assert result.report.kernels == {"MatMulIntegerToFloat": 12}
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    assert result.report.fidelity[0].cosine_min > 0.999


def test_the_plan_follows_the_shapes_that_are_named() -> None:
    """One row takes as long as reading the weights and the calls, of which blocks need one and others two."""
    random = np.random.default_rng(0)
    base = model_of(
        "g (float[N,256] x) => (float[N,256] y) { m = MatMul(x, w) t = Tanh(m) y = MatMul(t, v) }",
        w=random.normal(size=(256, 256), scale=1 / 16).astype(np.float32),
        v=random.normal(size=(256, 256), scale=1 / 16).astype(np.float32),
    )
    data = {"x": random.normal(size=(64, 256)).astype(np.float32)}
    given = QUICK | {"target": "x86-vnni", "costs": vars(KernelCosts(call=50.0))}
    few, many = (
        optimize(base, data, settings=OptimizeSettings(**given, shapes={"x": (rows, 256)})).report.layers
        for rows in (1, 1024)
    )
    assert {row.decision for row in few} == {"int8 blocks"}
    assert {row.decision for row in many} == {"int8 static"}


def test_a_shape_that_fits_no_input_is_refused_before_the_work() -> None:
    told: list[str] = []
    with pytest.raises(UsageProblem, match="no input named 'words'"):
        optimize(
            models.small(),
            models.small_data(),
            settings=OptimizeSettings(**QUICK, shapes={"words": (1, 8)}),
            progress=lambda stage, done, total: told.append(stage),
        )
    assert told == ["reading the model and the data"]
