"""Examples of whole values, each from a run of one sample."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import DataOptions, collect, open_data
from onnxq.calibration.instances import gather_examples
from onnxq.statistics import Examples, Statistic, Statistics
from tests.calibration.models import encoder, linear, ragged, table_of
from tests.graphs import model_of


def examples(model: ir.Model, data: object, *names: str, batch_size: int = 4) -> Statistics:
    source = open_data(data, model, DataOptions(batch_size=batch_size))
    return collect(model, source, {Statistic.EXAMPLES: names}, cache=False)


def arrays(found: Statistics, name: str) -> tuple[np.ndarray, ...]:
    each = found[name].examples
    assert each is not None
    return each.arrays


def padded(count: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    ids, lengths = rng.integers(1, 50, (count, 7)), rng.integers(2, 8, (count, 1))
    mask = (np.arange(7) < lengths).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def test_values_of_any_type_show_the_same_samples_with_their_padding() -> None:
    model = encoder()
    found = examples(model, padded(), "input_ids", "attention_mask", "hidden", "scores")
    ids = arrays(found, "input_ids")
    assert len(ids) == Examples.CAP
    assert all(array.shape == (1, 7) and array.dtype == np.int64 for array in ids)
    rows = {row.tobytes() for row in padded()["input_ids"]}
    for number, mask in zip(ids, arrays(found, "attention_mask"), strict=True):
        assert number.tobytes() in rows
        np.testing.assert_array_equal(number != 0, mask == 1)
    for number, hidden in zip(ids, arrays(found, "hidden"), strict=True):
        np.testing.assert_array_equal(hidden, table_of(model)[number])
    assert {array.shape for array in arrays(found, "scores")} == {(1, 2, 7, 7)}
    assert found["hidden"].count == 0
    assert not found.skipped


@pytest.mark.parametrize("batch_size", [1, 3])
def test_neither_order_nor_batches_matter(batch_size: int) -> None:
    data = padded()
    turned = {name: array[::-1] for name, array in data.items()}
    one = examples(encoder(), data, "hidden", "scores")
    assert examples(encoder(), turned, "hidden", "scores", batch_size=batch_size).tensors == one.tensors


def test_feeds_of_several_samples_are_taken_apart() -> None:
    model = encoder()
    found = examples(model, ragged(3), "input_ids", "hidden", "scores")
    ids = arrays(found, "input_ids")
    assert len(ids) == 4  # feeds of one, two and one samples
    assert all(array.shape[0] == 1 for array in ids)
    for number, hidden in zip(ids, arrays(found, "hidden"), strict=True):
        np.testing.assert_array_equal(hidden, table_of(model)[number])


def test_what_has_no_batch_axis_is_shown_as_it_is() -> None:
    model = model_of(
        """
        m (float[n, 4] x) => (float[n, 4] z)
        <float[4] scale = {1, 2, 3, 4}>
        {
          rows = Shape (x)
          table = Neg (scale)
          keep = Greater (x, scale)
          z = Mul (x, table)
        }
        """
    )
    x = np.arange(32, dtype=np.float32).reshape(8, 4)
    found = examples(model, {"x": x}, "rows", "table", "keep", "scale")
    assert all(array.tolist() == [1, 4] for array in arrays(found, "rows"))
    assert all(array.tolist() == [-1, -2, -3, -4] for array in arrays(found, "table"))
    assert all(array.shape == (1, 4) and array.dtype == np.bool_ for array in arrays(found, "keep"))
    assert found.skipped == {"scale": "is a constant"}


def test_a_fixed_batch_is_run_whole() -> None:
    model = linear("3, 4")
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    found = arrays(examples(model, {"x": x}, "y"), "y")
    assert sorted(float(array[0, 0]) for array in found) == sorted((x[:, 0] ** 2).tolist())
    assert all(array.shape == (1, 4) for array in found)


def test_whole_feeds_of_a_fixed_batch_are_cut_apart() -> None:
    model = linear("3, 4")
    feeds = [{"x": np.arange(12, dtype=np.float32).reshape(3, 4) + 12 * number} for number in range(2)]
    found = arrays(examples(model, feeds, "y"), "y")
    assert sorted(float(array[0, 0]) for array in found) == [(4.0 * row) ** 2 for row in range(6)]


def test_copies_of_a_sample_are_shown_once() -> None:
    assert len(arrays(examples(linear(), {"x": np.ones((5, 4), np.float32)}, "y"), "y")) == 1


def test_text_is_not_shown() -> None:
    model = model_of("m (string[n] s) => (string[n] t) { t = Identity (s) }")
    shown, skipped = gather_examples(model, open_data({"s": np.array(["a", "b"])}, model), ["s", "t"])
    assert not shown
    assert skipped == {"s": "holds text", "t": "holds text"}


def test_masks_and_other_kinds_go_together() -> None:
    model = model_of(
        """
        m (float[n, 2] x, bool[n, 2] keep) => (float[n, 2] p)
        {
          least = Constant <value = float {-inf}> ()
          scores = Where (keep, x, least)
          p = Softmax (scores)
        }
        """
    )
    data = {"x": np.ones((2, 2), np.float32), "keep": np.array([[True, True], [True, False]])}
    wanted = dict.fromkeys((Statistic.EXAMPLES, Statistic.HISTOGRAM), ("scores", "keep", "p"))
    found = collect(model, open_data(data, model), wanted, cache=False)
    assert sorted(array.tolist() for array in arrays(found, "scores")) == [[[1, -np.inf]], [[1, 1]]]
    assert found["scores"].histogram is None
    assert found["p"].histogram is not None
    assert found["p"].examples is not None
    assert set(found.skipped) == {"scores", "keep"}
