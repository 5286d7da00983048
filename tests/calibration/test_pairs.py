"""The same values in a model and in its quantized form."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import gather_pairs, open_data, sums
from onnxq.errors import CalibrationError
from onnxq.statistics import PairedMoments
from tests.calibration.models import encoder, linear, ragged, table_of
from tests.graphs import model_of

STEP = np.float32(0.25)


def coarse_table(model: ir.Model) -> np.ndarray:
    return np.asarray(np.round(table_of(model) / STEP) * STEP, dtype=np.float32)


def coarse_encoder() -> ir.Model:
    """The encoder with its table rounded, so that `hidden` and all behind it are a little off."""
    model = encoder()
    model.graph.initializers["table"].const_value = ir.tensor(coarse_table(model), name="table")
    return model


def expected(feeds: list[dict[str, np.ndarray]]) -> PairedMoments:
    """Of `hidden`, from numpy on everything at once."""
    ids = np.concatenate([feed["input_ids"][feed["attention_mask"] == 1] for feed in feeds])
    return PairedMoments.of(table_of(encoder())[ids], coarse_table(encoder())[ids])


def assert_close(found: PairedMoments, wanted: PairedMoments) -> None:
    for name, value in vars(wanted).items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-12, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("block", [4, 512])
def test_pairs_equal_numpy_on_everything_without_padding(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "BLOCK", block)
    model = encoder()
    found = gather_pairs(model, coarse_encoder(), open_data(ragged(), model), ["hidden", "flat"])
    assert list(found) == ["hidden", "flat"]
    assert_close(found["hidden"], expected(ragged()))
    assert_close(found["flat"], expected(ragged()))


def test_a_small_memory_gives_the_same_in_more_runs() -> None:
    model, names, seen = encoder(), ["logits", "hidden", "squared"], []
    source = open_data(ragged(), model)
    plenty = gather_pairs(model, coarse_encoder(), source, names)
    scarce = gather_pairs(
        model,
        coarse_encoder(),
        source,
        names,
        memory=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert scarce == plenty
    assert list(scarce) == names
    assert seen[-1] == (3 * len(source), 3 * len(source))


def test_a_counterpart_may_have_another_name() -> None:
    model = linear()
    rounded = model_of(
        """
        m (float[batch, 4] x) => (float[batch, 4] z)
        <float scale = {0.5}, uint8 zero = {10}>
        {
          q = QuantizeLinear (x, scale, zero)
          near = DequantizeLinear (q, scale, zero)
          y = Mul (near, near)
          z = Add (y, y)
        }
        """
    )
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(6, 4)
    near = np.round(x / 0.5) * 0.5
    source = open_data({"x": x}, model)
    found = gather_pairs(model, rounded, source, {"x": "near", "y": "y"})
    assert_close(found["x"], PairedMoments.of(x, near))
    assert_close(found["y"], PairedMoments.of(x * x, near * near))
    same = gather_pairs(model, rounded, source, ["x"])["x"]
    assert not same.error.any()
    np.testing.assert_array_equal(same.gram, same.gram_float)


@pytest.mark.parametrize("name", ["input_ids", "table", "absent", "scores"])
def test_what_cannot_be_paired_is_named(name: str) -> None:
    model = encoder()
    with pytest.raises(CalibrationError) as caught:
        gather_pairs(model, coarse_encoder(), open_data(ragged(), model), [name])
    assert caught.value.slug == "cannot-observe"
    assert repr(name) in caught.value.message


def test_a_counterpart_of_another_shape_or_none_at_all_is_named() -> None:
    model, source = encoder(), open_data(ragged(), encoder())
    with pytest.raises(CalibrationError, match=r"'hidden' and 'flat' is float32\(.*in the other"):
        gather_pairs(model, coarse_encoder(), source, {"hidden": "flat"})
    with pytest.raises(CalibrationError, match="in the quantized model: 'gone' is no value"):
        gather_pairs(model, coarse_encoder(), source, {"hidden": "gone"})


def test_infinity_in_the_quantized_model_is_an_error() -> None:
    model = linear()
    broken = model_of("m (float[batch, 4] x) => (float[batch, 4] z) { y = Exp (x) z = Add (y, y) }")
    source = open_data({"x": np.full((2, 4), 1000, np.float32)}, model)
    with pytest.raises(CalibrationError) as caught:
        gather_pairs(model, broken, source, ["y"])
    assert caught.value.slug == "non-finite-activation"
