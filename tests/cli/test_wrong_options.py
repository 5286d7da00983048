"""Every wrong command line: its exit code, and that the message names the thing and the way out."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

OPTIMIZE = ("optimize", "m.onnx", "--calib", "random")

WRONG = [
    (("optimise",), "Did you mean 'optimize'?"),
    (("--verion",), "--version"),
    (("optimize",), "Missing argument 'MODEL'"),
    (("optimize", "m.onnx"), "or the word random"),
    (("optimize", "a.onnx", "b.onnx", "--calib", "random"), "unexpected extra argument"),
    ((*OPTIMIZE, "--min-fidelty", "0.9"), "Did you mean '--min-fidelity'?"),
    ((*OPTIMIZE, "--min-fidelity", "high"), "'high' is not a valid float"),
    ((*OPTIMIZE, "--min-fidelity", "99.9"), "It has to be a cosine"),
    ((*OPTIMIZE, "--effort", "bests"), "'fast', 'balanced', 'best'"),
    ((*OPTIMIZE, "--format", "qoperator"), "'kernel', 'qdq'"),
    ((*OPTIMIZE, "--ranges", "entropy"), "'minmax', 'average', 'percentile', 'mse', 'token'"),
    ((*OPTIMIZE, "--max-drop", "much"), "written like 1% or 0.01"),
    ((*OPTIMIZE, "--max-drop", "1%"), "--eval my_module:accuracy"),
    ((*OPTIMIZE, "--max-drop", "300%", "--eval", "m:f"), "e.g. 0.01 or 1%"),
    ((*OPTIMIZE, "--eval", "m:f"), "max_drop and eval come together"),
    ((*OPTIMIZE, "--min-speedup", "-2"), "a ratio above 0"),
    ((*OPTIMIZE, "--threads", "0"), "threads is 0"),
    ((*OPTIMIZE, "--shape", "x"), "written like input_ids=1x128"),
    ((*OPTIMIZE, "--shape", "x=1,2"), "written like input_ids=1x128"),
    ((*OPTIMIZE, "--shape", "x=0x2"), "sizes of 1 or more"),
    ((*OPTIMIZE, "--mean", "a,b"), "written like 0.485,0.456,0.406"),
    ((*OPTIMIZE, "--mean", "1,2"), "of one length"),
    ((*OPTIMIZE, "--std", "0"), "numbers above 0"),
    ((*OPTIMIZE, "--batch-size", "0"), "batch_size is 0"),
    ((*OPTIMIZE, "--samples", "-3"), "samples is -3"),
    ((*OPTIMIZE, "--recipe", "missing.toml"), "cannot read the recipe missing.toml"),
    ((*OPTIMIZE, "--report", "m.onnx"), "m.onnx is named twice"),
    ((*OPTIMIZE, "-o", "x", "--save-recipe", "./x"), "x is named twice"),
    (("calibrate", "m.onnx", "--calib", "random", "-o", "m.onnx"), "m.onnx is named twice"),
    (("apply", "m.onnx", "-o", "x.onnx"), "Missing option '--pass'"),
    (("apply", "m.onnx", "--pass", "fold-gamma"), "Missing option '-o'"),
    (("apply", "m.onnx", "--pass", "fold-gama", "-o", "x.onnx"), "Did you mean 'fold-gamma'?"),
    (("apply", "m.onnx", "--pass", "fold-gamma{", "-o", "x.onnx"), "is not a pass"),
    (("passes", "fold-gama"), "Did you mean 'fold-gamma'?"),
    (("calibrate", "m.onnx", "-o", "s.npz"), "Missing option '--calib'"),
    (("calibrate", "m.onnx", "--calib", "random"), "Missing option '-o'"),
    (("compare", "a.onnx", "--data", "random"), "Missing argument 'CANDIDATE'"),
    (("compare", "a.onnx", "b.onnx"), "Missing option '--data'"),
    (("bench",), "Missing argument 'MODEL...'"),
    (("bench", "m.onnx", "--rounds", "0"), "rounds is 0"),
    (("bench", "m.onnx", "--seconds", "0"), "a time above 0"),
    (("bench", "m.onnx", "--timeout", "0"), "a time above 0"),
    (("bench", "m.onnx", "--warmup", "-1"), "a time, 0 or more"),
    (("bench", "m.onnx", "--shape", "1x128"), "written like input_ids=1x128, or batch=8,sequence=128"),
    (("bench", "m.onnx", "--shape", "x=1x2,"), "written like input_ids=1x128"),
    (("bench", "m.onnx", "--shape", "x=1x2,x=2x2"), "names x twice in one case"),
    (("bench", "m.onnx", "--shape", "x=0x2"), "sizes of 1 or more"),
    (("bench", "m.onnx", "--affinity", "3-1"), "written like 0,2-4, or any"),
    (("bench", "m.onnx", "--affinity", "all"), "written like 0,2-4, or any"),
    (("bench", "m.onnx", "--provider-option", "device_id"), "written like device_id=1"),
    (("bench", "m.onnx", "--save", "figures.txt"), "Its name ends in .html or .json"),
    (("bench", "m.json", "--save", "m.json"), "m.json is named twice"),
    (("bench", "m.onnx", "--save", "a.json", "--save", "./a.json"), "a.json is named twice"),
    (("doctor", "me"), "unexpected extra argument"),
]


@pytest.mark.parametrize(("words", "told"), WRONG, ids=lambda value: " ".join(value)[:60] if value else "")
@pytest.mark.usefixtures("api")
def test_a_wrong_command_line_exits_2_and_names_the_way_out(
    run: Callable[..., Result], words: tuple[str, ...], told: str
) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*OPTIMIZE, "-o", "missing/x.onnx"), "there is no folder missing"),
        ((*OPTIMIZE, "-o", "folder"), "folder is a folder"),
        ((*OPTIMIZE, "--report", "missing/r.html"), "there is no folder missing"),
        ((*OPTIMIZE, "--save-recipe", "missing/r.toml"), "there is no folder missing"),
        (("apply", "m.onnx", "--pass", "x", "-o", "missing/x.onnx"), "there is no folder missing"),
        (("calibrate", "m.onnx", "--calib", "random", "-o", "missing/s.npz"), "there is no folder missing"),
        (("demo", "--report", "missing/r.html"), "there is no folder missing"),
        (("bench", "m.onnx", "--save", "missing/r.html"), "there is no folder missing"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.setattr("onnxq.recipe.parse_pass", lambda text: text)
    Path("folder").mkdir()
    result = run(*words)
    assert (result.exit_code, result.stdout) == (9, "")
    assert told in result.stderr
