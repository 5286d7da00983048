"""Every wrong model, wrong data and wrong option through the real command line: exit code, word, message.

Whatever goes wrong, no file appears and the file at the output's place is the one that was there before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from onnxq.cli.program import program
from onnxq.files import save
from onnxq.runtime import Latency
from tests.api.models import small, small_data
from tests.files.test_recognise import WRONG_FILES

ROOT = Path(__file__).parents[1]
OLDER = b"what was there before"
Prepare = Callable[[], object]

OPTIMIZE = "optimize m.onnx --calib d.npz -o out.onnx --effort fast --verify never --target qdq --threads 1"
APPLY = "apply m.onnx --pass fold-gamma -o out.onnx"


@dataclass(frozen=True)
class Bad:
    """A command line, the exit code it must end with, the word for what is wrong, part of the message."""

    words: str
    code: int
    slug: str
    says: str
    prepare: Prepare = lambda: None


def file(name: str, content: bytes | str) -> Prepare:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda: Path(name).write_bytes(data)


def npz(**arrays: np.ndarray) -> Prepare:
    return lambda: np.savez("d.npz", **arrays)


def text_model(text: str, **changes: int) -> Prepare:
    def write() -> None:
        proto = onnx.parser.parse_model(text)
        for name, value in changes.items():
            setattr(proto, name, value)
        Path("m.onnx").write_bytes(proto.SerializeToString())

    return write


def external(location: str, length: int = 64) -> Prepare:
    """The model's weight lies in a file that the model names."""

    def write() -> None:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(4, 4))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=str(length))
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor]
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        Path("m.onnx").write_bytes(proto.SerializeToString())
        Path("..", "secret.bin").write_bytes(bytes(64))
        Path("short.bin").write_bytes(bytes(12))

    return write


def truncated() -> None:
    content = Path("m.onnx").read_bytes()
    Path("m.onnx").write_bytes(content[: len(content) // 2])


def poisoned_weight() -> None:
    model = small()
    weight = model.graph.initializers["w"].const_value.numpy().copy()
    weight[3, 3] = np.nan
    model.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
    save(model, "m.onnx")


def poisoned(value: float) -> np.ndarray:
    array = small_data()["x"]
    array[5, 1] = value
    return array


def folder_of_nothing() -> None:
    Path("empty").mkdir()


def linked_weight() -> None:
    external("link.bin")()
    Path("link.bin").symlink_to(Path("..", "secret.bin"))


def liar() -> None:
    """A graphsurgeon function that changes the result and says nothing of it."""
    Path("liar_of_mine.py").write_text("def lie(graph):\n    graph.nodes[-2].op = 'Tanh'\n")


HEAD = '<ir_version: 8, opset_import: ["" : 18]> g (float[N,16] x) => (float[N,16] y)'
OK = small_data()["x"]

MODELS = {
    "missing": Bad(OPTIMIZE.replace("m.onnx", "n.onnx", 1), 3, "missing", "n.onnx does not exist"),
    "a folder": Bad("inspect .", 3, "directory", "is a directory"),
    "truncated": Bad(OPTIMIZE, 3, "truncated", "ends too early", truncated),
    "an undefined value": Bad(
        OPTIMIZE, 3, "undefined-value", "nowhere", text_model(f"{HEAD} {{ y = Add(x, nowhere) }}")
    ),
    "no opset": Bad(
        "inspect m.onnx",
        3,
        "no-opset",
        "operator set",
        lambda: Path("m.onnx").write_bytes(
            onnx.ModelProto(ir_version=8, graph=small_proto().graph).SerializeToString()
        ),
    ),
    "a newer format": Bad(
        OPTIMIZE, 3, "newer-ir", "99", text_model(f"{HEAD} {{ y = Tanh(x) }}", ir_version=99)
    ),
    "an unknown operator": Bad(
        OPTIMIZE, 8, "refused", "NoSuchOperator", text_model(f"{HEAD} {{ y = NoSuchOperator(x) }}")
    ),
    "weights outside": Bad(OPTIMIZE, 4, "escapes", "../secret.bin", external("../secret.bin")),
    "weights anywhere": Bad(OPTIMIZE, 4, "absolute-path", "/etc/passwd", external("/etc/passwd")),
    "weights behind a link": Bad(OPTIMIZE, 4, "symlink", "link.bin", linked_weight),
    "weights missing": Bad(OPTIMIZE, 4, "missing", "gone.bin", external("gone.bin")),
    "weights too short": Bad(OPTIMIZE, 4, "out-of-bounds", "short.bin", external("short.bin")),
    "weights of another size": Bad(OPTIMIZE, 4, "size-mismatch", "w", external("short.bin", 12)),
    "weights that are no numbers": Bad(OPTIMIZE, 7, "non-finite-activation", "computes NaN", poisoned_weight),
    "text for a tensor": Bad(
        "calibrate m.onnx --calib random -o out.onnx",
        7,
        "no-random-data",
        "string",
        text_model(
            '<ir_version: 8, opset_import: ["" : 18]> g (string[N] x) => (string[N] y) { y = Identity(x) }'
        ),
    ),
}

DATA = {
    "missing": Bad(OPTIMIZE.replace("d.npz", "e.npz"), 7, "no-such-data", "there is no e.npz"),
    "unknown kind": Bad(
        OPTIMIZE.replace("d.npz", "d.csv"), 7, "unknown-kind", "d.csv", file("d.csv", "1,2\n")
    ),
    "an empty folder": Bad(
        OPTIMIZE.replace("d.npz", "empty"), 7, "empty-source", "holds nothing", folder_of_nothing
    ),
    "no samples": Bad(OPTIMIZE, 7, "empty-source", "empty", npz(x=OK[:0])),
    "another name": Bad(OPTIMIZE, 7, "missing-input", "x: float32[N, 16]", npz(inputs=OK)),
    "another type": Bad(OPTIMIZE, 7, "wrong-dtype", "int64", npz(x=OK.astype(np.int64))),
    "another width": Bad(OPTIMIZE, 7, "wrong-shape", "float32[1, 5]", npz(x=OK[:, :5])),
    "too many axes": Bad(OPTIMIZE, 7, "wrong-shape", "x: float32[N, 16]", npz(x=OK[:, None, None])),
    "nan": Bad(OPTIMIZE, 7, "non-finite-input", "sample 5", npz(x=poisoned(np.nan))),
    "infinity": Bad(OPTIMIZE, 7, "non-finite-input", "inf", npz(x=poisoned(np.inf))),
    "pickled objects": Bad(OPTIMIZE, 7, "object-array", "pickled", npz(x=np.array([OK, None], dtype=object))),
    "no archive": Bad(OPTIMIZE, 7, "corrupt-npz", "d.npz", file("d.npz", b"PK\x03\x04 and so on")),
    "no function": Bad(OPTIMIZE.replace("d.npz", "json:feeds"), 7, "no-function", "json:feeds"),
    "no module": Bad(OPTIMIZE.replace("d.npz", "no_module_here:f"), 7, "no-function", "no_module_here"),
    "text without a tokenizer": Bad(
        OPTIMIZE.replace("d.npz", "d.jsonl"), 7, "not-a-text-model", "text", file("d.jsonl", '"a"\n')
    ),
    "for compare": Bad(
        "compare m.onnx m.onnx --data d.npz", 7, "wrong-dtype", "int64", npz(x=OK.astype(int))
    ),
    "for calibrate": Bad("calibrate m.onnx --calib d.npz -o out.onnx", 7, "missing-input", "x", npz(z=OK)),
    "for inspect": Bad("inspect m.onnx --calib d.npz", 7, "non-finite-input", "nan", npz(x=poisoned(np.nan))),
    "for apply": Bad(f"{APPLY} --calib d.npz", 7, "wrong-shape", "x", npz(x=OK[:, :3])),
}

RECIPE = f"{OPTIMIZE} --recipe r.toml"
OPTIONS = {
    "unknown command": Bad("optimise m.onnx", 2, "", "Did you mean 'optimize'?"),
    "unknown option": Bad(f"{OPTIMIZE} --min-fidelty 1", 2, "", "Did you mean '--min-fidelity'?"),
    "unknown choice": Bad(f"{OPTIMIZE} --ranges entropy", 2, "", "'percentile', 'mse', 'token'"),
    "out of range": Bad(f"{OPTIMIZE} --min-fidelity 99", 2, "bad-setting", "a cosine"),
    "unknown target": Bad(f"{OPTIMIZE} --target x86-vni", 2, "unknown-target", "did you mean 'x86-vnni'?"),
    "unknown pass": Bad(APPLY.replace("gamma", "gama"), 2, "unknown-pass", "Did you mean 'fold-gamma'?"),
    "unknown pass for optimize": Bad(f"{OPTIMIZE} --pass drop", 2, "unknown-pass", "no pass 'drop'"),
    "unknown option of a pass": Bad(
        APPLY.replace("gamma", "gamma{guards=1}"), 2, "unknown-option", "Did you mean 'guard'?"
    ),
    "another type for an option of a pass": Bad(
        APPLY.replace("gamma", "gamma{guard=big}"), 2, "bad-setting", "a number"
    ),
    "no pass at all": Bad(APPLY.replace("gamma", "gamma{"), 2, "bad-pass", "is not a pass"),
    "no such gs function": Bad(APPLY.replace("fold-gamma", "gs:json:nothing"), 2, "", "json"),
    "no recipe": Bad(RECIPE, 2, "unreadable-recipe", "r.toml"),
    "a recipe that is no TOML": Bad(RECIPE, 2, "bad-recipe", "is not TOML", file("r.toml", "version = ")),
    "a recipe without a version": Bad(RECIPE, 2, "recipe-version", "no version", file("r.toml", "seed = 1")),
    "a recipe of another version": Bad(RECIPE, 2, "recipe-version", "2", file("r.toml", "version = 2")),
    "unknown recipe key": Bad(
        RECIPE, 2, "unknown-setting", "Did you mean 'effort'?", file("r.toml", "version = 1\neffrt = 'best'")
    ),
    "unknown key of a recipe's table": Bad(
        RECIPE, 2, "unknown-setting", "data.batchsize", file("r.toml", "version = 1\n[data]\nbatchsize = 2")
    ),
    "another type in a recipe": Bad(
        RECIPE, 2, "bad-setting", "a whole number", file("r.toml", "version = 1\nseed = 'one'")
    ),
    "a score that is not there": Bad(
        f"{OPTIMIZE} --eval json:accuracy --max-drop 1%", 2, "no-such-function", "json:accuracy"
    ),
    "the model as the report": Bad(f"{OPTIMIZE} --report m.onnx", 2, "same-file", "named twice"),
    "no data": Bad("optimize m.onnx", 2, "no-data", "--calib"),
    "a missing folder": Bad(APPLY.replace("out", "gone/out"), 9, "no-folder", "there is no folder gone"),
    "a file for a folder": Bad(APPLY.replace("out", "d.npz/out"), 9, "no-folder", "d.npz"),
    "a folder for a file": Bad(f"{OPTIMIZE} -o .", 9, "not-writable", "is a folder"),
    "a place that takes no files": Bad(
        APPLY.replace("out.onnx", "/proc/out.onnx"), 9, "io-error", "/proc/out.onnx"
    ),
    "a report in a missing folder": Bad(f"{OPTIMIZE} --report gone/r.html", 9, "no-folder", "gone"),
}

RESULTS = {
    "too slow": Bad(f"{OPTIMIZE} --min-speedup 1000", 10, "goal-missed", "speed at least 1000x"),
    "too far off": Bad(
        f"{OPTIMIZE} --min-fidelity 1 --pass quantize-linears", 10, "goal-missed", "mean cosine at least 1"
    ),
    "a broken promise": Bad(
        APPLY.replace("fold-gamma", "gs:liar_of_mine:lie"), 5, "broken-promise", "liar_of_mine", liar
    ),
}


def small_proto() -> onnx.ModelProto:
    return ir.to_proto(small())


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good model, good data, and an older file where results are to go."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save(small(), "m.onnx")
    np.savez("d.npz", **small_data())
    Path("out.onnx").write_bytes(OLDER)
    return folder


def contents(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and "__pycache__" not in path.parts
    }


def assert_refused(bad: Bad, folder: Path) -> None:
    bad.prepare()
    before = contents(folder)
    result = CliRunner().invoke(program, bad.words.split(), prog_name="onnxq")
    assert result.exit_code == bad.code, result.output
    assert bad.says in result.stderr
    assert f"[{bad.slug}]" in result.stderr
    assert "bug in onnxq" not in result.stderr
    assert "Traceback" not in result.stderr
    if bad.code not in (5, 10) and "/proc" not in bad.words:  # what was done is told first there
        assert result.stdout == ""
    assert contents(folder) == before


def without_slug(bad: Bad, folder: Path) -> None:
    """Click's own complaints have no slug."""
    before = contents(folder)
    result = CliRunner().invoke(program, bad.words.split(), prog_name="onnxq")
    assert (result.exit_code, result.stdout) == (bad.code, "")
    assert bad.says in result.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_is_no_model(name: str, workplace: Path) -> None:
    content, slug, told = WRONG_FILES[name]
    assert_refused(Bad(OPTIMIZE, 3, slug, told, file("m.onnx", content)), workplace)


@pytest.mark.parametrize("words", ["inspect m.onnx", APPLY, "calibrate m.onnx --calib d.npz -o out.onnx",
                                   "compare m.onnx m.onnx --data d.npz", "bench m.onnx"])  # fmt: skip
def test_every_verb_looks_at_the_file_first(words: str, workplace: Path) -> None:
    assert_refused(
        Bad(words, 3, "lfs-pointer", "git lfs pull", file("m.onnx", WRONG_FILES["lfs pointer"][0])), workplace
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_model(name: str, workplace: Path) -> None:
    assert_refused(MODELS[name], workplace)


@pytest.mark.parametrize("name", DATA)
def test_wrong_data(name: str, workplace: Path) -> None:
    assert_refused(DATA[name], workplace)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_option(name: str, workplace: Path) -> None:
    bad = OPTIONS[name]
    if "/proc" in bad.words and not Path("/proc/self").exists():
        pytest.skip("there is no such place here")
    if bad.slug:
        assert_refused(bad, workplace)
    else:
        without_slug(bad, workplace)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_that_may_not_be_handed_over(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "gs:" in RESULTS[name].words:
        pytest.importorskip("onnx_graphsurgeon")

    def tell(models: dict[str, object], *_: object, **__: object) -> dict[str, Latency]:
        return {name: Latency(1, 1, 1, 0, 0, (1.0,), 1, 1, 1) for name in models}

    monkeypatch.setattr("onnxq.api.evaluate.measure_latency", tell)
    assert_refused(RESULTS[name], workplace)


def test_good_input_is_taken(workplace: Path) -> None:
    """The command lines that the cases above spoil are fine without the spoiling."""
    for words in (APPLY, "calibrate m.onnx --calib d.npz -o s.npz", "compare m.onnx m.onnx --data d.npz"):
        result = CliRunner().invoke(program, words.split(), prog_name="onnxq")
        assert result.exit_code == 0, result.output
    assert Path("out.onnx").read_bytes() != OLDER


@pytest.mark.parametrize(
    "bad",
    [
        MODELS["truncated"],
        DATA["another name"],
        OPTIONS["unknown recipe key"],
        OPTIONS["a missing folder"],
    ],
    ids=lambda bad: bad.slug,
)
def test_a_process_of_its_own_says_the_same(bad: Bad, workplace: Path) -> None:
    bad.prepare()
    before = contents(workplace)
    ran = subprocess.run(
        [sys.executable, "-m", "onnxq", *bad.words.split(), "--json"],
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == bad.code, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["slug"], told["exit_code"]) == (bad.slug, bad.code)
    assert bad.says in ran.stderr
    assert contents(workplace) == before
