"""How commands end when something is wrong: exit code of the class, one message, no traceback."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from onnxq import errors
from onnxq.errors import BackendError, CalibrationError, OnnxqError, UsageProblem
from tests.cli.conftest import Api

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OnnxqError)]
WORDS = ("optimize", "m.onnx", "--calib", "random")


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_ends_with_the_exit_code_of_its_class(
    api: Api, run: Callable[..., Result], kind: type[OnnxqError]
) -> None:
    api.answers("optimize", kind("the thing is wrong", hint="do that", slug="wrong-thing"))
    result = run(*WORDS)
    assert result.exit_code == kind.exit_code
    assert result.stdout == ""
    assert result.stderr == "error: the thing is wrong [wrong-thing]\ndo that\n"


def test_an_error_without_hint_is_one_line(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", CalibrationError("no samples"))
    assert run(*WORDS).stderr == "error: no samples\n"


def test_json_tells_the_error_too(
    api: Api, run: Callable[..., Result], told: Callable[[Result], Any]
) -> None:
    api.answers("optimize", CalibrationError("no samples", hint="give some", slug="no-data"))
    result = run(*WORDS, "--json")
    assert told(result) == {
        "schema": "onnxq/error-1",
        "kind": "CalibrationError",
        "slug": "no-data",
        "message": "no samples",
        "hint": "give some",
        "exit_code": 7,
    }
    assert "no samples" in result.stderr


def test_a_bug_is_called_a_bug_and_shows_its_place(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", ZeroDivisionError("division by zero"))
    result = run(*WORDS)
    assert result.exit_code == 1
    assert "this is a bug in onnxq: ZeroDivisionError: division by zero at " in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), UsageProblem("no such pass")])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    api: Api, run: Callable[..., Result], error: Exception
) -> None:
    api.answers("optimize", error)
    plain, debug = run(*WORDS), run(*WORDS, "--debug")
    assert "Traceback" in debug.stderr
    assert debug.exit_code == plain.exit_code


def test_running_out_of_memory_is_no_bug(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", MemoryError())
    result = run(*WORDS)
    assert result.exit_code == BackendError.exit_code
    assert "--batch-size" in result.stderr


def test_ctrl_c_exits_130_and_writes_nothing(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", KeyboardInterrupt())
    result = run(*WORDS)
    assert result.exit_code == 130
    assert result.stderr == "onnxq: stopped; nothing was written\n"


def test_a_message_cannot_drive_the_terminal(api: Api, run: Callable[..., Result]) -> None:
    api.answers("optimize", UsageProblem("no \x1b[2J\nline two", hint="a\x07b"))
    assert run(*WORDS).stderr == "error: no \\x1b[2J\nline two\na\\x07b\n"
