"""Files and functions stay short enough to read in one go."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.sources import modules, path_of, tree_of

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
USUAL_FUNCTION = 30


def lengths_of(module: str) -> dict[str, int]:
    """Lines of each function, docstring and decorators not counted."""
    lengths = {}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            first = body[0].lineno if body else node.lineno
            lengths[f"{module}.{node.name}:{node.lineno}"] = (node.end_lineno or first) - first + 1
    return lengths


@pytest.mark.parametrize("module", modules())
def test_file_and_functions_are_short(module):
    assert len(path_of(module).read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert {name: length for name, length in lengths_of(module).items() if length > LONGEST_FUNCTION} == {}


def test_nine_functions_in_ten_are_very_short():
    lengths = sorted(length for module in modules() for length in lengths_of(module).values())
    assert lengths[int(len(lengths) * 0.9)] <= USUAL_FUNCTION
