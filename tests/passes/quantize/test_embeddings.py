"""Embedding tables in int8, each row on a scale of its own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.quantize.embeddings import QuantizeEmbeddings
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import PassResult, apply_pass
from onnxq.runtime import open_session
from tests.graphs import check, model_of, ops_of, outputs_of
from tests.passes.quantize.integers import seen

ROWS, C = 60, 16


def table(seed: int = 0) -> np.ndarray:
    """Rows over six orders of magnitude, one of zeros."""
    random = np.random.default_rng(seed)
    made = random.normal(size=(ROWS, C)) * 10 ** random.uniform(-3, 3, (ROWS, 1))
    made[7] = 0
    return made.astype(np.float32)


def model(body: str = "y = Gather(table, ids)", shape: str = "B,T", **arrays: np.ndarray) -> ir.Model:
    text = f"g (int64[{shape}] ids) => (float[{shape},16] y) {{ {body} }}"
    made = model_of(text, **({"table": table()} | arrays))
    for number, node in enumerate(made.graph):
        node.name = f"node{number}"
    return made


def quantized(given: ir.Model, **options: object) -> PassResult:
    result = apply_pass(given, QuantizeEmbeddings(**options))
    check(result.model)
    return result


def rows(ids: np.ndarray) -> np.ndarray:
    """Each row rounded by itself."""
    exact = table().astype(np.float64)
    scale = (np.abs(exact).max(axis=1, keepdims=True) / 127).astype(np.float32)
    scale[scale == 0] = 1
    return (np.rint(exact / scale).astype(np.float32) * scale)[ids]


@pytest.mark.parametrize(
    ("shape", "size"), [("N", (9,)), ("B,T", (2, 5)), ("A,B,T", (2, 3, 4)), ("2,3", (2, 3))]
)
def test_rows_are_rounded_one_by_one(shape: str, size: tuple[int, ...]) -> None:
    result = quantized(model(shape=shape))
    assert result.modified
    ids = np.random.default_rng(1).integers(-ROWS, ROWS, size)
    for found in (outputs_of(result.model, {"ids": ids}), open_session(result.model).run({"ids": ids})):
        np.testing.assert_array_equal(found["y"], rows(ids))


def test_each_row_keeps_its_precision_and_zeros_stay_zeros() -> None:
    found = outputs_of(quantized(model(shape="N")).model, {"ids": np.arange(ROWS)})["y"]
    worst = np.abs(found - table()).max(axis=1)
    assert (worst <= 0.5001 * np.abs(table()).max(axis=1) / 127).all()
    np.testing.assert_array_equal(found[7], 0)


def test_the_table_is_never_dequantized_as_a_whole_and_shrinks() -> None:
    result = quantized(model("e = Gather(table, ids) y = Tanh(e)"))
    assert ops_of(result.model) == ["Gather", "Gather", "Cast", "Mul", "Tanh"]
    before, after = (sum(v.const_value.nbytes for v in m.graph.initializers.values())
                     for m in (model(), result.model))  # fmt: skip
    assert after < before / 3


def test_a_table_that_a_linear_reads_stays() -> None:
    """Beside a float table that has to stay, an int8 one would only add to the size."""
    body = "e = Gather(table, ids) t = Transpose(table) m = MatMul(e, t) y = MatMul(m, table)"
    result = quantized(model(body))
    assert not result.modified
    assert "a linear reads the table too" in result.rejects[0].reason


def test_once_its_head_is_quantized_a_tied_table_follows() -> None:
    given = model("e = Gather(table, ids) turned = Transpose(table) y = MatMul(e, turned)", "N")
    given.graph.outputs[0].shape = ir.Shape(["N", ROWS])
    ids = np.arange(ROWS)
    head = apply_pass(given, QuantizeLinears(float_tables=("*",)), seen(table(), "e")).model
    result = quantized_any(head)
    assert "table" not in result.graph.initializers
    exact = outputs_of(given, {"ids": ids})["y"]
    large = np.abs(table()).max(axis=1) > 100
    found = outputs_of(result, {"ids": ids})["y"]
    assert np.abs(found - exact)[large].max() < 0.05 * np.abs(exact).max()


def quantized_any(given: ir.Model) -> ir.Model:
    """Without the checker, which does not know the runtime's own operators."""
    result = apply_pass(given, QuantizeEmbeddings())
    assert result.modified, result.rejects
    return result.model


@pytest.mark.parametrize("pattern", ["node0", "node*", "*"])
def test_a_table_that_is_told_to_stay_float_does(pattern: str) -> None:
    result = quantized(model(), skip=("other", pattern))
    assert not result.modified
    assert "told to stay float" in result.rejects[0].reason


def test_two_embeddings_of_one_table() -> None:
    body = "e = Gather(table, ids) f = Gather(table, ids) y = Add(e, f)"
    result = quantized(model(body))
    ids = np.array([[3, 7, 59]])
    np.testing.assert_array_equal(outputs_of(result.model, {"ids": ids})["y"], 2 * rows(ids))
    assert "table" not in result.model.graph.initializers


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
def test_tables_of_other_types_stay(dtype: type, bits: int) -> None:
    """What reads their rows wants that type: a model in half precision has no rows in float32."""
    given = model(
        "e = Gather(table, ids) y = Cast<to = 1>(e)", table=np.clip(table(), -6e4, 6e4).astype(dtype)
    )
    result = quantized(given, bits=bits, block=16)
    assert not result.modified
    assert f"its table is {np.dtype(dtype).name}" in result.rejects[0].reason


@pytest.mark.parametrize("block", [16, 32])
def test_four_bits_in_blocks(block: int) -> None:
    wide = np.tile(table(), (1, 4))
    text = f"g (int64[B,T] ids) => (float[B,T,{4 * C}] y) {{ y = Gather(table, ids) }}"
    result = apply_pass(model_of(text, table=wide), QuantizeEmbeddings(bits=4, block=block))
    assert ops_of(result.model) == ["GatherBlockQuantized", "Reshape"]
    ids = np.array([[0, 7, 59], [-1, 3, -ROWS]])
    reach = np.abs(wide).max(axis=1, keepdims=True)
    for found in (outputs_of(result.model, {"ids": ids}), open_session(result.model).run({"ids": ids})):
        assert (np.abs(found["y"] - wide[ids]) <= reach[ids] / 5).all()
        assert np.square(found["y"] - wide[ids]).sum() < 0.01 * np.square(wide[ids]).sum()
        np.testing.assert_array_equal(found["y"][0, 1], 0)
    before, after = (
        sum(v.const_value.nbytes for v in m.graph.initializers.values())
        for m in (model_of(text, table=wide), result.model)
    )
    assert after < before / 4


def test_rows_that_blocks_do_not_fill_stay() -> None:
    result = apply_pass(model(), QuantizeEmbeddings(bits=4, block=32))
    assert not result.modified
    assert "not filled by blocks" in result.rejects[0].reason
