from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import Result

from onnxq.cli.optimize import optimize
from onnxq.passes.quantize.ranges import RangeMethod
from onnxq.recipe import DataSettings, OptimizeSettings
from onnxq.recipe.settings import Ranges
from onnxq.report.measures import Goal
from onnxq.report.rows import PassRow
from tests.cli.conftest import Api, Optimized

WORDS = ("optimize", "m.onnx", "--calib", "random")
MISSED = Optimized(Goal("mean cosine of 0.9999 or more", "0.9990", False))
SLOW = Optimized(
    Goal("no slower than fp32", "0.87x at x=1x16", False, "`--min-speedup 0.7` takes a slower file.")
)


def settings_of(api: Api) -> OptimizeSettings:
    settings = api.calls[-1][2]["settings"]
    assert isinstance(settings, OptimizeSettings)
    return settings


def test_the_result_lies_beside_the_model_and_the_figures_on_stdout(
    api: Api, run: Callable[..., Result]
) -> None:
    result = run(*WORDS)
    assert result.exit_code == 0
    assert Path("m.int8.onnx").read_bytes() == b"rewritten"
    assert Path("m.onnx").read_bytes() == b"original"
    assert "2.00x the speed" in result.stdout
    assert "m.int8.onnx" in result.stderr
    (verb, args, _), *_ = api.calls
    assert (verb, args) == ("optimize", (Path("m.onnx"), "random"))


def test_without_options_settings_are_the_defaults(api: Api, run: Callable[..., Result]) -> None:
    run(*WORDS)
    assert settings_of(api) == OptimizeSettings()


def test_every_option_reaches_the_settings(api: Api, run: Callable[..., Result]) -> None:
    result = run(
        *WORDS,
        *("--target", "x86-vnni", "--effort", "best", "--format", "qdq", "--ranges", "mse"),
        *("--min-fidelity", "0.99", "--max-drop", "1%", "--eval", "m:f", "--min-speedup", "1.5"),
        *("--threads", "2", "--shape", "a=1x128", "--shape", "b=1x128x3", "--pass", "p", "--pass", "q{a=1}"),
        *("--keep-float", "head", "--verify", "each", "--seed", "3", "--samples", "9", "--batch-size", "4"),
        *("--tokenizer", "t.json", "--max-length", "64", "--image-size", "224"),
        *("--mean", "0.4,0.5,0.6", "--std", "0.1,0.2,0.3", "--max-size", "25MB"),
    )
    assert result.exit_code == 0, result.stderr
    assert settings_of(api) == OptimizeSettings(
        target="x86-vnni",
        effort="best",
        format="qdq",
        ranges="mse",
        min_fidelity=0.99,
        max_drop=0.01,
        eval="m:f",
        min_speedup=1.5,
        threads=2,
        max_size=25_000_000,
        shapes={"a": (1, 128), "b": (1, 128, 3)},
        passes=("p", "q{a=1}"),
        keep_float=("head",),
        verify="each",
        seed=3,
        data=DataSettings(9, 4, "t.json", 64, 224, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)),
    )


def test_the_command_line_goes_before_the_recipe(
    api: Api, run: Callable[..., Result], tmp_path: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('version = 1\neffort = "best"\nseed = 5\n[data]\nbatch_size = 2\nsamples = 7\n')
    run(*WORDS, "--recipe", "r.toml", "--seed", "6", "--batch-size", "3")
    settings = settings_of(api)
    assert (settings.effort, settings.seed) == ("best", 6)
    assert (settings.data.samples, settings.data.batch_size) == (7, 3)


def test_report_and_recipe_are_written_where_asked(api: Api, run: Callable[..., Result]) -> None:
    run(*WORDS, "-o", "out.onnx", "--report", "r.html", "--save-recipe", "r.toml")
    assert Path("out.onnx").read_bytes() == b"rewritten"
    assert Path("r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert Path("r.toml").read_text(encoding="utf-8") == "version = 1\n"
    assert sorted(path.name for path in Path().iterdir()) == ["m.onnx", "out.onnx", "r.html", "r.toml"]


def test_json_is_the_only_thing_on_stdout(
    api: Api, run: Callable[..., Result], told: Callable[[Result], Any]
) -> None:
    result = run(*WORDS, "--json")
    assert told(result)["schema"] == "onnxq/report-1"
    assert told(result)["latency"][1]["ratio"] == 2.0
    assert "2.00x the speed" in result.stderr


def test_a_missed_goal_shows_the_figures_and_writes_no_model(
    api: Api, run: Callable[..., Result], told: Callable[[Result], Any]
) -> None:
    api.answers("optimize", MISSED)
    Path("m.int8.onnx").write_bytes(b"older")
    result = run(*WORDS, "--report", "r.html", "--json")
    assert result.exit_code == 10
    assert Path("m.int8.onnx").read_bytes() == b"older"
    assert Path("r.html").exists()
    assert told(result)["goals"][0]["met"] is False
    assert "mean cosine of 0.9999 or more: got 0.9990" in result.stderr
    assert "try --effort best" in result.stderr


def test_a_missed_goal_names_its_way_out(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", SLOW)
    result = run(*WORDS)
    assert result.exit_code == 10
    assert "no slower than fp32: got 0.87x at x=1x16" in result.stderr
    assert "Nothing was written at m.int8.onnx. `--min-speedup 0.7` takes a slower file." in result.stderr
    assert not Path("m.int8.onnx").exists()


UNDONE = Optimized(passes=(PassRow("tidy", "bitwise", 0, verdict="different", note="other numbers"),))


def test_a_pass_asked_for_and_rolled_back_ends_as_with_apply(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", UNDONE)
    result = run(*WORDS, "--pass", "tidy", "--report", "r.html")
    assert result.exit_code == 5
    assert "tidy: other numbers" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["m.onnx", "r.html"]


def test_a_pass_of_onnxqs_own_choice_may_be_rolled_back(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", UNDONE)
    assert run(*WORDS).exit_code == 0
    assert Path("m.int8.onnx").exists()


def test_every_range_method_is_a_choice_and_a_setting() -> None:
    (option,) = (each for each in optimize.params if each.name == "ranges")
    assert tuple(option.type.choices) == get_args(Ranges) == get_args(RangeMethod)


def test_the_default_name_never_is_the_model_itself(api: Api, run: Callable[..., Result]) -> None:
    Path("m.int8.onnx").symlink_to("m.onnx")
    result = run(*WORDS)
    assert result.exit_code == 2
    assert "m.int8.onnx is the model itself" in result.stderr
    assert Path("m.onnx").read_bytes() == b"original"
    assert api.calls == []


def test_the_model_is_overwritten_when_o_says_so(api: Api, run: Callable[..., Result]) -> None:
    assert run(*WORDS, "-o", "m.onnx").exit_code == 0
    assert Path("m.onnx").read_bytes() == b"rewritten"


@pytest.mark.usefixtures("api")
def test_a_report_that_cannot_be_written_leaves_the_old_one(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("r.html").write_text("older")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = run(*WORDS, "--report", "r.html")
    assert result.exit_code == 9
    assert "cannot write r.html: No space left on device" in result.stderr
    assert Path("r.html").read_text() == "older"
    assert sorted(path.name for path in Path().iterdir()) == ["m.onnx", "r.html"]
