"""What the runtime has to be told beside a model: written, read with suspicion, heeded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxq
from onnxq.api import latency
from onnxq.api.evaluate import Pace, time_pairs
from onnxq.api.opening import Opening, path_beside, read_opening, write_opening
from onnxq.calibration import open_data
from onnxq.errors import UsageProblem
from onnxq.files import save
from onnxq.recipe import BenchSettings
from onnxq.runtime import open_session, timing
from onnxq.targets import TARGETS
from onnxq.targets.opening import ARM_BFLOAT16, OpeningOption
from tests.api import models

ARM = Opening("cpu", ARM_BFLOAT16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(models.small(), found := tmp_path / "small.int8.onnx")
    return found


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_target_asks_for_is_written_and_read_back(name: str, path: Path) -> None:
    opening = Opening.of(models.small(), TARGETS[name])
    assert len(opening.options) == len(TARGETS[name].opening), "this model has linears in float"
    written = write_opening(opening, path)
    if not opening.options:
        assert written is None
        assert read_opening(path) is None
        return
    assert written == path_beside(path) == path.with_name("small.int8.session.json")
    assert read_opening(path) == opening
    reasons = json.loads(written.read_text())["reasons"]
    assert set(reasons) == {each.name for each in opening.options}
    assert all(each["reason"] and each["known_from"] for each in reasons.values())


def test_the_file_holds_mappings_as_the_runtime_takes_them(path: Path) -> None:
    written = write_opening(Opening.of(models.small(), TARGETS["tensorrt"]), path)
    assert written is not None
    record = json.loads(written.read_text())
    assert record["provider"] == "tensorrt"
    assert record["provider_options"] == {"trt_int8_enable": "True", "trt_fp16_enable": "True"}
    assert (record["session_config"], record["disabled_optimizers"]) == ({}, {})


def test_an_option_for_float_products_is_left_out_where_there_are_none(path: Path) -> None:
    without = models.small()
    without.graph.remove([node for node in without.graph if node.op_type != "LayerNormalization"], safe=False)
    assert Opening.of(without, TARGETS["arm-i8mm"]).options == ()


def test_a_file_of_the_model_that_was_there_before_goes_and_a_strangers_stays(path: Path) -> None:
    write_opening(ARM, path)
    assert write_opening(Opening(), path) is None
    assert not path_beside(path).exists()
    path_beside(path).write_text('{"mine": 1}')
    write_opening(Opening(), path)
    assert path_beside(path).read_text() == '{"mine": 1}'


def changed(**parts: Any) -> str:
    return json.dumps(ARM.record() | parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        changed(schema="another/session-1"),
        changed(provider="tensorrt"),
        changed(provider=["cpu"]),
        changed(provider_options={"trt_extra_plugin_lib_paths": "evil.so"}),
        changed(session_config={"ep.context_enable": "1"}),
        changed(session_config={"mlas.enable_gemm_fastmath_arm64_bfloat16": "2"}),
        changed(session_config={"mlas.enable_gemm_fastmath_arm64_bfloat16": {}}),
        changed(disabled_optimizers=None),
    ],
)
def test_what_onnxq_never_asks_for_is_refused(text: str, path: Path) -> None:
    path_beside(path).write_text(text)
    for reader in (read_opening, onnxq.session):
        with pytest.raises(UsageProblem) as caught:
            reader(path)
        assert caught.value.slug == "bad-session-file"


def test_a_session_opens_with_what_the_file_says_and_without_one(path: Path) -> None:
    feeds = models.small_data(4)
    expected = open_session(path).run(feeds)["y"]
    np.testing.assert_array_equal(onnxq.session(path).run(feeds)["y"], expected)
    write_opening(ARM, path)
    settings = ARM.settings(threads=3)
    assert settings.config == (("mlas.enable_gemm_fastmath_arm64_bfloat16", "1"),)
    assert (settings.threads, settings.provider) == (3, "cpu")
    session = onnxq.session(path, threads=1)
    assert session.run(feeds)["y"].shape == expected.shape


def test_every_kind_of_option_reaches_the_settings_of_a_session() -> None:
    kinds = ("provider option", "session config", "disabled optimizer")
    options = tuple(OpeningOption(kind, f"of {kind}", "1", "why", "how") for kind in kinds)  # type: ignore[arg-type]
    settings = Opening("cuda", options).settings()
    assert settings.provider_options == (("of provider option", "1"),)
    assert settings.config == (("of session config", "1"),)
    assert settings.disabled_optimizers == ("of disabled optimizer",)


def test_bench_heeds_it_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    open_contest = latency.open_contest

    def watched(contenders: Any, *given: Any) -> Any:
        seen.update(contenders)
        return open_contest(contenders, *given)

    monkeypatch.setattr(latency, "open_contest", watched)
    save(models.small(), plain := path.with_name("plain.onnx"))
    write_opening(ARM, path)
    quick = BenchSettings(threads=1, rounds=1, seconds=0.02, disabled_optimizers=("A",))
    hints = onnxq.bench([plain, path], quick).hints
    assert seen["plain.onnx"].settings.config == ()
    assert seen[path.name].settings.config == ARM.settings().config
    assert seen[path.name].settings.disabled_optimizers == ("A",)
    assert f"{path.name} was opened as its session file says: {ARM_BFLOAT16[0].name} = 1." in hints


def test_bench_on_another_provider_says_what_the_model_is_for(path: Path) -> None:
    write_opening(Opening("tensorrt", TARGETS["tensorrt"].opening), path)
    hints = onnxq.bench([path], BenchSettings(threads=1, rounds=1, seconds=0.02)).hints
    assert any("is for --provider tensorrt" in hint and "was not heeded" in hint for hint in hints)


def test_a_file_for_an_accelerator_is_timed_as_it_wants_to_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def measured(found: Any, *_: Any, **__: Any) -> dict[str, Any]:
        seen.append(found)
        return {}

    monkeypatch.setattr("onnxq.api.evaluate.measure_latency", measured)
    model = models.small()
    data = open_data(models.small_data(4), model)
    for provider in ("tensorrt", "cpu"):
        time_pairs(model, model, data, [{"x": (1, 16)}], Pace(1, 0.1, 1, provider=provider))
    assert seen[0]["fp32"] is model
    assert dict(seen[0]["onnxq"].settings.provider_options)["trt_int8_enable"] == "True"
    assert seen[1] == {"fp32": model, "onnxq": model}


def test_what_a_file_wants_reaches_the_process_that_times_it() -> None:
    settings = Opening("tensorrt", TARGETS["tensorrt"].opening).settings()
    told = timing._job("m", settings, timing.Watch(provider_options=(("device_id", "1"),)), "T", [])
    assert told["provider_options"] == dict(settings.provider_options) | {"device_id": "1"}
