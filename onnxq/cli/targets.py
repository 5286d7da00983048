"""Files that a verb is going to write: looked at before the work, written whole after it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from onnxq.errors import OutputError, UsageProblem


def default_output(model: Path) -> Path:
    """`model.int8.onnx` beside `model.onnx`.

    Raises:
        UsageProblem: That name is the model itself, by a link; only `-o` may say to overwrite it.
    """
    output = model.with_name(f"{model.stem}.int8{model.suffix or '.onnx'}")
    if output.exists() and model.exists() and output.samefile(model):
        raise UsageProblem(
            f"{output} is the model itself",
            hint=f"Say where to write: -o OTHER.onnx, or -o {model} to overwrite it.",
            slug="overwrites-input",
        )
    return output


def check_writable(*paths: Path | None) -> None:
    """Refuse, before minutes of work, paths that could not be written after it.

    Raises:
        OutputError: The folder is missing or closed, or the path is a folder.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise OutputError(f"{path} is a folder", hint="Name a file.", slug="not-writable")
        if not path.parent.is_dir():
            raise OutputError(f"there is no folder {path.parent}", hint="Make it first.", slug="no-folder")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(f"cannot write into {path.parent}", slug="not-writable")


def check_apart(*paths: Path | None) -> None:
    """Refuse a file that is named for two things.

    Raises:
        UsageProblem: Writing one would destroy the other.
    """
    seen: set[Path] = set()
    for path in paths:
        if path is None:
            continue
        if path.resolve() in seen:
            raise UsageProblem(
                f"{path} is named twice", hint="Give each file its own name.", slug="same-file"
            )
        seen.add(path.resolve())


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        OutputError: It could not be written; what was there is still there.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", slug="not-writable") from error
