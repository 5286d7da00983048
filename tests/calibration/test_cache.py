"""What was collected is kept for the next time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from onnxq.calibration import collect, open_data, taps
from onnxq.calibration.cache import ENTRIES, Cache
from onnxq.files.folders import platform_cache
from onnxq.statistics import Statistic, Statistics
from tests.calibration.models import EVERY_KIND, every, linear
from tests.graphs import model_of


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each calibration that really runs."""
    count: list[int] = []
    observe = taps.observe

    def counted(*arguments: object, **options: object) -> Iterator[taps.Sighting]:
        count.append(1)
        return observe(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("onnxq.calibration.collection.observe", counted)
    return count


def collected(folder: Path, *, width: float = 1, kinds: Sequence[Statistic] = EVERY_KIND) -> Statistics:
    x = np.full((3, 4), width, dtype=np.float32)
    source = open_data({"x": x}, linear())
    return collect(linear(), source, dict.fromkeys(kinds, ("y",)), cache_dir=folder)


def test_the_second_time_nothing_runs(tmp_path: Path, runs: list[int]) -> None:
    first = collected(tmp_path)
    assert collected(tmp_path) == first
    assert len(runs) == 1


def test_other_data_or_wishes_or_model_run_again(tmp_path: Path, runs: list[int]) -> None:
    collected(tmp_path)
    collected(tmp_path, width=2)
    collected(tmp_path, kinds=EVERY_KIND[:1])
    other = model_of("m (float[n, 4] x) => (float[n, 4] y) { y = Neg (x) }")
    x = np.full((3, 4), 1, dtype=np.float32)
    collect(other, open_data({"x": x}, other), every("y"), cache_dir=tmp_path)
    assert len(runs) == 4


def test_a_damaged_entry_is_made_again(tmp_path: Path, runs: list[int]) -> None:
    first = collected(tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:100])
    assert collected(tmp_path) == first
    assert collected(tmp_path) == first
    assert len(runs) == 2


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path, runs: list[int]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "y" in collected(tmp_path / "file" / "cache")


def test_what_is_skipped_is_remembered(tmp_path: Path) -> None:
    source = open_data({"x": np.ones((1, 4), np.float32)}, linear())
    found = [collect(linear(), source, every("y", "no"), cache_dir=tmp_path).skipped for _ in range(2)]
    assert found[0] == found[1] == {"no": "is no value of the model"}


def test_the_oldest_entries_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in range(ENTRIES + 3):
        cache.keep(str(number), Statistics())
        os.utime(tmp_path / f"{number}.npz", (number, number))
    cache.keep("last", Statistics())
    assert len(list(tmp_path.iterdir())) == ENTRIES
    assert cache.find("last") is not None
    assert cache.find("0") is None


def test_large_results_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = collected(tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.unlink()
    monkeypatch.setattr("onnxq.calibration.cache.LARGEST", found.nbytes - 1)
    assert collected(tmp_path) == found
    assert not list(tmp_path.iterdir())


def test_the_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert platform_cache() == tmp_path / "onnxq"
    collected(None)  # type: ignore[arg-type]
    assert list((tmp_path / "onnxq" / "statistics").glob("*.npz"))
