"""Results of methods on disk, row by row, with what decides whether a row has to be measured again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.artefacts import Row
from benchmarks.planned import Bits, Planned, Upstream
from benchmarks.recipes import Recipe, Step
from benchmarks.rivals import environment
from onnxq.recipe import format_pass

SOURCES = ("api", "passes", "planning", "calibration", "statistics", "ir", "pipeline", "targets")
"""Packages whose code decides the figures."""


def code_fingerprint() -> str:
    """Twelve digits over the code that decides the figures."""
    package = Path(__file__).parents[1] / "onnxq"
    digest = hashlib.sha256()
    for path in sorted(each for name in SOURCES for each in (package / name).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def digest(parts: Iterable[str]) -> str:
    """Twelve digits over texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def describe(recipe: Recipe) -> str:
    """A recipe as text: the same text, the same passes."""
    steps = [_text(each) for each in recipe.exact]
    extras = ["per token"] * recipe.per_token + ["token-wise clipping"] * recipe.clipping
    extras += [repr(recipe.learned)] if recipe.learned is not None else []
    return " + ".join([*steps, format_pass(recipe.rounding), *extras])


def _text(step: Step) -> str:
    if isinstance(step, Upstream):
        return f"{format_pass(step.own)} on {format_pass(step.rounding)}"
    return repr(step) if isinstance(step, Planned) else format_pass(step)


class Ledger:
    """The results of one model on disk, written after every row.

    Args:
        path: The JSON file.
        name: Of the model.
        given: What its figures hang on besides the code; results with other values begin anew.
        keep: Whether rows that older code gave stand.
    """

    def __init__(self, path: Path, name: str, given: Mapping[str, Any], *, keep: bool) -> None:
        self.path, self.keep, self.code = path, keep, code_fingerprint()
        self.cpu = environment()["cpu"]
        blank = {"methods": name, "environment": environment(), **given, "rows": {}}
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else blank
        if any(self.content.get(key) != value for key, value in given.items()):
            self.content = blank

    def holds(self, name: str, bits: Bits, recipe: Recipe) -> bool:
        """Whether a row stands as it is."""
        found = self.content["rows"].get(name, {}).get(str(bits), {})
        same = found.get("call") == describe(recipe) and "failure" not in found
        return same and (self.keep or found.get("code") == self.code)

    def note(self, name: str, bits: Bits, row: Row) -> None:
        """Write one row down."""
        rows = self.content["rows"].setdefault(name, {})
        rows[str(bits)] = row | {"code": self.code, "cpu": self.cpu}
        self.write()

    def write(self) -> None:
        """Replace the file whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.content, indent=1, sort_keys=True) + "\n")
        draft.replace(self.path)
