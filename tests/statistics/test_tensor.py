"""Statistics of a value, of a model, and on disk."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onnxq.errors import CalibrationError, OutputError
from onnxq.statistics import Examples, Statistic, Statistics, TensorStatistics, store


def example(seed: int = 0, kinds: tuple[Statistic, ...] = tuple(Statistic)) -> TensorStatistics:
    return TensorStatistics.of(np.random.default_rng(seed).normal(size=(6, 3)).astype(np.float32), kinds)


def shown() -> TensorStatistics:
    """A value of which only examples were kept, of several element types."""
    arrays = [np.array([[True]]), np.full((1, 2), np.nan, np.float16), np.arange(3), np.zeros((0, 2))]
    return TensorStatistics(0, examples=Examples.of(arrays))


def full(seed: int = 0) -> Statistics:
    tensors = {
        "/layer.0/x": example(seed),
        "only extremes": example(seed, (Statistic.CHANNEL_EXTREMES,)),
        "only examples": shown(),
    }
    return Statistics(tensors, {"z": "is a constant"}, "model", frozenset({f"data{seed}"}))


def test_only_what_is_wanted_is_computed() -> None:
    found = example(kinds=(Statistic.HISTOGRAM,))
    assert found.histogram is not None
    assert (found.channel, found.token, found.moments, found.raw) == (None, None, None, None)
    assert (found.average, found.rows, found.examples) == (None, None, None)


@pytest.mark.parametrize("kind", [Statistic.HISTOGRAM, Statistic.CHANNEL_EXTREMES, Statistic.TOKEN_EXTREMES])
def test_the_range_is_exact_whichever_statistic_holds_it(kind: Statistic) -> None:
    whole = example()
    assert (example(kinds=(kind,)).low, example(kinds=(kind,)).high) == (whole.low, whole.high)


@pytest.mark.parametrize("kind", [kind for kind in Statistic if kind is not Statistic.EXAMPLES])
def test_one_kind_is_let_go_of_and_all_others_stay(kind: Statistic) -> None:
    others = set(Statistic) - {kind}
    left = Statistics({"x": example(), "y": shown()}).without({kind})
    assert left == Statistics({"x": example(kinds=tuple(others)), "y": shown()})
    assert left.without({Statistic.EXAMPLES})["y"].examples is None


def test_no_statistic_no_range() -> None:
    assert np.isnan(example(kinds=(Statistic.SECOND_MOMENTS,)).low)


def test_a_kind_that_one_side_lacks_is_dropped_in_a_merge() -> None:
    merged = example(0).merge(example(1, (Statistic.HISTOGRAM,)))
    assert merged.channel is None
    assert merged.histogram is not None
    assert merged.count == 12


def test_merging_models_adds_samples_and_keeps_strangers() -> None:
    one, two = full(0), Statistics({"y": example(2)}, {}, "model", frozenset({"other"}))
    merged = one.merge(two).merge(full(1))
    assert set(merged) == {"/layer.0/x", "only extremes", "only examples", "y"}
    assert merged["/layer.0/x"] == example(0).merge(example(1))
    assert merged.data == {"data0", "data1", "other"}


def test_statistics_of_two_models_do_not_merge() -> None:
    with pytest.raises(CalibrationError) as caught:
        full().merge(Statistics(model="another"))
    assert caught.value.slug == "other-model"


def test_saved_and_read_again_they_are_the_same(tmp_path: Path) -> None:
    full().save(tmp_path / "s.npz")
    assert Statistics.read(tmp_path / "s.npz") == full()


def test_the_same_statistics_give_the_same_bytes(tmp_path: Path) -> None:
    full().save(tmp_path / "one.npz")
    full().save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    small = Statistics({"x": example(kinds=(Statistic.CHANNEL_EXTREMES, Statistic.TOKEN_EXTREMES))})
    small.save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            read = Statistics.read(path)
        except CalibrationError as error:
            assert error.slug == "corrupt-statistics"
        else:
            assert read == small


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", b"\x93NUMPY\x01\x00"])
def test_what_is_no_statistics_file_is_called_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.npz"
    path.write_bytes(content)
    with pytest.raises(CalibrationError) as caught:
        Statistics.read(path)
    assert caught.value.slug == "corrupt-statistics"
    assert str(path) in caught.value.message


def rewrite_index(path: Path, change: dict[str, object]) -> None:
    with np.load(path) as archive:
        arrays = dict(archive)
    index = {**json.loads(arrays["index"].tobytes()), **change}
    arrays["index"] = np.frombuffer(json.dumps(index).encode(), dtype=np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"format": 1},
        {"tensors": {"x": {"class": "Examples", "arrays": [1], "keys": {"array": "a0"}}}},
        {"tensors": {"x": {"class": "Path"}}},
        {"tensors": {"x": 3}},
        {"tensors": {"x": {"class": "TensorStatistics", "count": 1, "histogram": "a"}}},
        {"tensors": {"x": {"class": "TensorStatistics", "count": 1, "histogram": {"array": "a0"}}}},
        {"tensors": {"x": {"class": "TensorStatistics", "count": 1, "channel": {"array": "none"}}}},
    ],
)
def test_a_forged_index_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "s.npz"
    full().save(path)
    rewrite_index(path, change)
    with pytest.raises(CalibrationError) as caught:
        Statistics.read(path)
    assert caught.value.slug == "corrupt-statistics"


def test_pickles_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, index=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CalibrationError) as caught:
        Statistics.read(path)
    assert caught.value.slug == "corrupt-statistics"


def test_a_missing_file_is_another_error_than_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        Statistics.read(tmp_path / "absent.npz")
    assert caught.value.slug == "no-statistics"


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.npz"
    full(0).save(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", fail)
    with pytest.raises(OutputError) as caught:
        full(1).save(path)
    assert caught.value.exit_code == 9
    assert Statistics.read(path) == full(0)
    assert [file.name for file in tmp_path.iterdir()] == ["s.npz"]


def test_the_file_holds_plain_arrays_only(tmp_path: Path) -> None:
    full().save(tmp_path / "s.npz")
    with zipfile.ZipFile(tmp_path / "s.npz") as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        assert all(not arrays[name].dtype.hasobject for name in arrays)
