"""Words that have no business in the sources."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.sources import PACKAGE, REPOSITORY, imports_of, modules, tree_of

# Absolute paths of the machine a file was written on mean nothing elsewhere. Spelled apart for this file.
MACHINE = re.compile(r"(?<![\w.}])/" + r"(?:root|work|home/\w+)\b(?!s)")
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
NETWORK = {"requests", "urllib", "httpx", "http", "ftplib", "aiohttp"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
TEXT = {".py", ".md", ".toml", ".html", ".css", ".txt", ".json", ".yml", ".yaml", ".cfg"}
FOLDERS = ("onnxq", "tests", "benchmarks", "docs")


def text_files():
    tops = [path for path in REPOSITORY.iterdir() if path.is_file() and path.suffix in TEXT]
    inner = [path for name in FOLDERS for path in (REPOSITORY / name).rglob("*") if path.suffix in TEXT]
    return [path for path in tops + inner if "__pycache__" not in path.parts]


def test_no_path_of_the_writers_machine():
    found = {
        str(path.relative_to(REPOSITORY)): match.group()
        for path in text_files()
        if (match := MACHINE.search(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize("module", modules())
def test_nothing_unpickles_evaluates_or_calls_out(module):
    tops = {name.split(".")[0] for name in imports_of(module)}
    assert not tops & (UNSAFE_MODULES | NETWORK)
    called = {
        node.func.id
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & UNSAFE_CALLS
    allowed = [
        keyword.value
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "allow_pickle"
    ]
    assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed)


def test_no_vague_names():
    names = {
        part for path in PACKAGE.rglob("*.py") for part in path.relative_to(PACKAGE).with_suffix("").parts
    }
    assert not names & VAGUE
