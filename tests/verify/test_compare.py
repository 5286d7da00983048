"""Figures of a comparison, on arrays whose figures are known."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from onnxq.verify import compare


def one(reference, candidate, **options):
    (output,) = compare({"y": reference}, {"y": candidate}, **options).outputs.values()
    return output


def test_equal_arrays_are_identical_to_the_last_figure():
    array = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    output = one(array, array.copy())
    assert output.identical
    assert (output.cosine_mean, output.cosine_min, output.sqnr_db, output.max_abs) == (
        1.0,
        1.0,
        math.inf,
        0.0,
    )
    assert (output.rows, output.elements) == (3, 12)


def test_known_error_gives_known_figures():
    output = one(np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[3.0, 4.0], [2.0, 0.0]]))
    assert not output.identical
    assert output.cosine_mean == pytest.approx(0.5)
    assert output.cosine_min == 0.0
    assert output.sqnr_db == pytest.approx(10 * math.log10(29 / 8))
    assert (output.max_abs, output.scale) == (2.0, 4.0)


def test_rows_of_zeros():
    zero, other = np.zeros((1, 3)), np.ones((1, 3))
    assert one(zero, -zero).cosine_min == 1.0
    assert one(zero, other).cosine_min == 0.0
    assert one(zero, other).sqnr_db == -math.inf


def test_negative_zero_is_not_the_same_bits():
    output = one(np.array([0.0, 1.0], np.float32), np.array([-0.0, 1.0], np.float32))
    assert not output.identical
    assert (output.max_abs, output.wrong) == (0.0, 0)


def test_nan_is_as_good_as_another_nan_and_nothing_else():
    odd = np.array([0x7FC00001, 0x3F800000], np.uint32).view(np.float32)
    plain = np.array([np.nan, 1.0], np.float32)
    assert one(plain, odd).identical
    assert one(plain, np.array([2.0, 1.0], np.float32)).wrong == 1
    assert one(plain, np.array([np.nan, np.nan], np.float32)).wrong == 1


def test_infinities_must_agree_in_sign():
    reference = np.array([np.inf, -np.inf, 1.0])
    assert one(reference, reference.copy()).identical
    assert one(reference, -reference).wrong == 2
    assert one(reference, -reference).max_abs == 2.0


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, ml_dtypes.int4])
def test_exact_types_count_what_is_wrong(dtype):
    output = one(np.array([0, 1, 1]).astype(dtype), np.array([0, 1, 0]).astype(dtype))
    assert (output.identical, output.wrong, output.elements) == (False, 1, 3)


def test_strings_are_exact():
    assert one(np.array(["a", "b"], object), np.array(["a", "b"], object)).identical
    assert one(np.array(["a", "b"], object), np.array(["a", "c"], object)).wrong == 1


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.complex64])
def test_every_kind_of_float_is_measured(dtype):
    output = one(np.array([1.0, 2.0]).astype(dtype), np.array([1.0, 2.5]).astype(dtype))
    assert output.max_abs == 0.5
    assert output.wrong == 0


def test_other_shape_or_type_or_name_is_a_mismatch():
    array = np.zeros((2, 3), np.float32)
    assert "shape (2, 3) became (3, 2)" in one(array, array.T).mismatch
    assert "float32 became float64" in one(array, array.astype(np.float64)).mismatch
    assert compare({"y": array}, {}).mismatch == "y: is missing"
    assert compare({}, {"z": array}).mismatch == "z: is not in the reference"
    assert not compare({"y": array}, {"y": array.T}).identical


@pytest.mark.parametrize(
    "array", [np.float32(2.0), np.zeros((0, 4), np.float32), np.zeros((3, 0), np.float32)]
)
def test_scalars_and_nothing_at_all(array):
    array = np.asarray(array)
    output = one(array, array.copy())
    assert output.identical
    assert output.elements == array.size
    assert output.cosine_mean == 1.0


def test_column_of_scores_is_one_row():
    output = one(np.array([[1.0], [-2.0]]), np.array([[1.0], [2.0]]))
    assert output.rows == 1
    assert output.cosine_min == pytest.approx(-3 / 5)


def test_top1_is_counted_where_the_largest_entry_is_the_answer():
    reference, candidate = np.array([[1.0, 2.0], [4.0, 3.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    assert one(reference, candidate).top1 is None
    logits = compare({"logits": reference}, {"logits": candidate}).outputs["logits"]
    assert logits.top1 == 0.5
    wide = np.random.default_rng(0).standard_normal((2, 1000))
    assert one(wide, wide).top1 == 1.0


def test_padding_does_not_count():
    reference = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    candidate = np.array([[[1.0, 0.0], [9.0, 9.0]]])
    keep = {"y": np.array([[True, False]])}
    output = one(reference, candidate, keep=keep)
    assert output.identical
    assert output.rows == 1


def test_sequences_are_compared_element_by_element():
    first, second = [np.ones(2), np.zeros(2)], [np.ones(2), np.ones(2)]
    outputs = compare({"s": first}, {"s": second}).outputs
    assert [output.identical for output in outputs.values()] == [True, True, False]
    assert not compare({"s": first}, {"s": first[:1]}).identical
    assert compare({"s": None}, {"s": None}).identical


def test_merging_runs_is_comparing_them_together():
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((6, 5))
    candidate = reference + rng.standard_normal((6, 5)) / 10
    whole = one(reference, candidate)
    parts = compare({"y": reference[:2]}, {"y": candidate[:2]}).merge(
        compare({"y": reference[2:]}, {"y": candidate[2:]})
    )
    merged = parts.outputs["y"]
    assert merged.cosine_mean == pytest.approx(whole.cosine_mean)
    assert merged.sqnr_db == pytest.approx(whole.sqnr_db)
    assert (merged.cosine_min, merged.max_abs, merged.rows) == (whole.cosine_min, whole.max_abs, whole.rows)


def test_worst_output_is_a_mismatch_then_a_wrong_one_then_the_noisiest():
    good, noisy = np.ones(4), np.ones(4) * 1.1
    found = compare(
        {"a": good, "b": good, "c": np.ones(4, int), "d": good},
        {"a": good, "b": noisy, "c": np.zeros(4, int), "d": good[:2]},
    )
    order = []
    outputs = dict(found.outputs)
    while outputs:
        worst = type(found)(outputs).worst
        order.append(worst.name)
        del outputs[worst.name]
    assert order == ["d", "c", "b", "a"]
