"""A head and its embedding: one table of codes for both."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import collect, open_data
from onnxq.contract import names_wanted
from onnxq.passes.quantize.fitting import Rounding
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
from onnxq.runtime import confirm_kernels, expected_kernels, open_session, optimized_graph
from tests.graphs import model_of, outputs_of

V, K = 48, 64
IDS = np.array([[0, 5, 47], [-1, 1, -48]])
BODY = """
    e = Gather(w, ids)
    h = Mul(e, gain)
    t = Transpose<perm = [1, 0]>(w)
    y = MatMul(h, t)
"""


def tied_model() -> tuple[ir.Model, np.ndarray, np.ndarray]:
    """The model, its table and its gain."""
    random = np.random.default_rng(4)
    table = random.normal(size=(V, K)).astype(np.float32)
    gain = random.uniform(0.5, 2, K).astype(np.float32)
    text = f"g (int64[B,T] ids) => (float[B,T,{V}] y, float[B,T,{K}] e) {{ {BODY} }}"
    return model_of(text, w=table, gain=gain), table, gain


def quantized(given: ir.Model, a_pass: QuantizeLinears) -> ir.Model:
    statistics = collect(given, open_data([{"ids": IDS}], given), names_wanted([a_pass], given))
    result = apply_pass(given, a_pass, statistics)
    assert result.modified, result.rejects
    assert result.settled
    return result.model


def constants_of(model: ir.Model, *shape: int) -> list[np.ndarray]:
    found = (value.const_value for value in model.graph.initializers.values())
    return [each.numpy() for each in found if each is not None and tuple(each.shape) == shape]


@pytest.mark.parametrize("per_token", [(), ("y",)])
@pytest.mark.parametrize("rounding", ["nearest", "feedback"])
def test_a_head_and_its_embedding_share_the_codes(per_token: tuple[str, ...], rounding: Rounding) -> None:
    given, _, gain = tied_model()
    model = quantized(given, QuantizeLinears(per_token=per_token, rounding=rounding))
    (rows,), (scale,) = constants_of(model, V, K), constants_of(model, V)
    assert rows.dtype == np.int8
    assert constants_of(model, K, V) == []
    values = rows.astype(np.float32) * scale[:, None]
    for found in (outputs_of(model, {"ids": IDS}), open_session(model).run({"ids": IDS})):
        np.testing.assert_allclose(found["e"], values[IDS], rtol=1e-6)
        wanted = (found["e"] * gain) @ values.T
        assert np.abs(found["y"] - wanted).max() < 0.02 * np.abs(wanted).max()
    landings = confirm_kernels(expected_kernels(model), optimized_graph(model))
    assert [each.reason for each in landings if not each.landed] == []
    assert len(landings) == 1


@pytest.mark.parametrize("a_pass", [QuantizeLinears(float_tables=("*",)), QuantizeLinears(form="qdq")])
def test_an_embedding_that_is_to_stay_float_keeps_its_table(a_pass: QuantizeLinears) -> None:
    given, table, _ = tied_model()
    found = outputs_of(quantized(given, a_pass), {"ids": IDS})
    np.testing.assert_array_equal(found["e"], table[IDS])


def test_an_embedding_of_another_type_than_its_head_keeps_its_table() -> None:
    """The head reads the table in float32, the embedding gives rows in half precision."""
    table = np.random.default_rng(4).normal(size=(V, K)).astype(np.float16)
    body = """e = Gather(w, ids)  h = Cast<to = 1>(e)
              c = Cast<to = 1>(w)  t = Transpose<perm = [1, 0]>(c)  y = MatMul(h, t)"""
    text = f"g (int64[B,T] ids) => (float[B,T,{V}] y, float16[B,T,{K}] e) {{ {body} }}"
    found = outputs_of(quantized(model_of(text, w=table), QuantizeLinears()), {"ids": IDS})
    np.testing.assert_array_equal(found["e"], table[IDS])


def test_the_runtime_turns_the_codes_over_when_it_loads_them() -> None:
    given, _, _ = tied_model()
    operators = [node.op_type for node in optimized_graph(quantized(given, QuantizeLinears())).graph]
    assert "Transpose" not in operators
