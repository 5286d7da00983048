"""Tokens of values of every shape."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnxq.calibration.inputs import InputSpec
from onnxq.calibration.tokens import masks_of, sample_keys, tokens_by_sample

MASK = np.array([[True, True, True, False], [True, False, False, False]])
B, S, C = *MASK.shape, 5


def numbered(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def counts(array: np.ndarray, *masks: np.ndarray) -> list[tuple[int | None, tuple[int, ...]]]:
    return [(sample, tokens.shape) for sample, tokens in tokens_by_sample(array, B, masks)]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((B, S, C), [(0, (3, C)), (1, (1, C))]),
        ((B * S, C), [(0, (3, C)), (1, (1, C))]),
        ((B, S, 3, C), [(0, (9, C)), (1, (3, C))]),
        ((B, 3, S, S), [(0, (3 * S, S)), (1, (3 * S, S))]),
        ((B, S, S, C), [(0, (S * S, C)), (1, (S * S, C))]),  # as many heads as tokens: not to be told apart
        ((B, C), [(0, (1, C)), (1, (1, C))]),
        ((C, C, C), [(None, (C * C, C))]),
        ((C,), [(None, (1, C))]),
        ((), [(None, (1, 1))]),
        ((B, S, 0), [(0, (3, 0)), (1, (1, 0))]),
    ],
)
def test_shapes(shape: tuple[int, ...], expected: list[tuple[int | None, tuple[int, ...]]]) -> None:
    assert counts(numbered(*shape), MASK) == expected


@pytest.mark.parametrize("shape", [(B, S, C), (B * S, C)])
def test_the_positions_that_the_mask_shows_are_the_ones_that_stay(shape: tuple[int, ...]) -> None:
    array = numbered(*shape)
    found = np.concatenate([tokens for _, tokens in tokens_by_sample(array, B, [MASK])])
    np.testing.assert_array_equal(found, array.reshape(B * S, C)[MASK.reshape(-1)])


def test_without_a_mask_flat_tokens_go_to_their_samples() -> None:
    assert counts(numbered(B * S, C)) == [(0, (S, C)), (1, (S, C))]


def test_the_mask_of_the_right_length_is_taken() -> None:
    longer = np.ones((B, S + 2), dtype=bool)
    assert counts(numbered(B, S, C), longer, MASK) == [(0, (3, C)), (1, (1, C))]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_short_floats_are_widened(dtype: type) -> None:
    ((_, tokens), *_) = tokens_by_sample(np.ones((B, C), dtype), B, [])
    assert tokens.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "taken"),
    [
        ("attention_mask", np.int64, (2, 3), True),
        ("input_mask", np.int32, (2, 3), True),
        ("attention_mask", np.bool_, (2, 3), True),
        ("attention_mask", np.float32, (2, 3), False),
        ("attention_mask", np.int64, (2, 1, 3, 3), False),
        ("key_padding_mask", np.bool_, (2, 3), False),
        ("bool_masked_pos", np.bool_, (2, 3), False),
        ("input_ids", np.int64, (2, 3), False),
    ],
)
def test_what_is_taken_for_a_mask(name: str, dtype: type, shape: tuple[int, ...], taken: bool) -> None:
    spec = InputSpec(name, np.dtype(dtype), tuple(map(str, shape)))
    assert bool(masks_of({name: np.ones(shape, dtype)}, [spec])) == taken


def test_a_sample_has_one_key_however_it_is_padded_and_batched() -> None:
    def keys(rows: list[list[int]], length: int) -> list[int]:
        ids, mask = np.zeros((len(rows), length), int), np.zeros((len(rows), length), bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, True
        feeds = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        return sample_keys(feeds, len(rows), [mask])

    together = keys([[5, 6, 7], [8], [9, 9]], 6)
    assert together == [keys([row], len(row))[0] for row in ([5, 6, 7], [8], [9, 9])]
    assert len(set(together)) == 3
