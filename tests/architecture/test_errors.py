"""Every public exception is raised by something, has an exit code, and a slug wherever it is raised."""

from __future__ import annotations

import ast
import inspect

import pytest

from onnxq import errors
from onnxq.errors import OnnxqError
from tests.architecture.sources import modules, tree_of

PUBLIC = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, OnnxqError) and not kind.__subclasses__()
]


def calls_by_name() -> dict[str, list[tuple[str, ast.Call]]]:
    calls: dict[str, list[tuple[str, ast.Call]]] = {}
    for module in modules():
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                calls.setdefault(name, []).append((f"{module}:{node.lineno}", node))
    return calls


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_exception_is_raised_with_a_slug(kind):
    calls = calls_by_name().get(kind.__name__, [])
    assert calls, f"nothing raises {kind.__name__}"
    without = [
        where for where, call in calls if not {"slug", None} & {keyword.arg for keyword in call.keywords}
    ]
    assert without == []


def test_exit_codes_tell_the_families_apart():
    families = OnnxqError.__subclasses__()
    codes = [kind.exit_code for kind in families]
    assert len(set(codes)) == len(codes)
    assert OnnxqError.exit_code not in codes
    assert 0 not in codes


def test_hint_follows_the_message():
    error = errors.UsageProblem("what", hint="way out", slug="word")
    assert str(error) == "what\nway out"
    assert str(errors.UsageProblem("what")) == "what"
