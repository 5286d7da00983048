"""What takes long, kept in a folder of the user's: a run that was killed goes on from there.

A result is found again by everything that it hangs on: the model, the data, the passes and their options, the
version of onnxq. So the folder can serve many runs, a result that does not fit is not taken, and one that was
damaged is made again. Each is written whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxq.api.records import version
from onnxq.contract import AnyPass, Change, Contract, Reject
from onnxq.errors import OnnxqError, OutputError
from onnxq.files import fingerprint, load, save
from onnxq.files.records import read_record, write_record
from onnxq.ir.walk import nodes
from onnxq.pipeline import PassResult, PipelineResult
from onnxq.recipe import format_pass
from onnxq.recipe.typed import build, plain
from onnxq.verify import Judgement

FORMAT = 1
"""Raised when a record is written in another way."""


@dataclass(frozen=True)
class _PassRecord:
    """A `PassResult` without its model."""

    name: str
    contract: Contract
    changes: tuple[Change, ...] = ()
    rejects: tuple[Reject, ...] = ()
    settled: bool = True
    skipped: str = ""
    rolled_back: str = ""
    judgement: Judgement | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class _RunRecord:
    """A `PipelineResult` without its model."""

    results: tuple[_PassRecord, ...]
    journal: tuple[Change, ...] = ()
    timings: Mapping[str, float] | None = None
    judgement: Judgement | None = None


class Checkpoints:
    """A folder of results.

    Args:
        folder: Where; made if it does not exist. None keeps nothing.
        context: What all results hang on besides what each names: data, checks, seed.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, folder: Path | None, context: Sequence[str] = ()) -> None:
        self._folder, self._context = folder, tuple(context)
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make {folder}: {error.strerror}", slug="cannot-write") from error

    def run(
        self, model: ir.Model, passes: Sequence[AnyPass], make: Callable[[], PipelineResult]
    ) -> PipelineResult:
        """What `passes` make of `model`: kept from an earlier time, or made now and kept."""
        if self._folder is None:
            return make()
        stem = self._folder / self._key("run", *_identity(model), *map(format_pass, passes))
        kept = _read_run(stem)
        if kept is not None:
            return kept
        made = make()
        save(made.model, stem.with_suffix(".onnx"))
        _write(stem.with_suffix(".json"), plain(_record(made)))
        return made

    def figures(
        self, what: str, model: ir.Model, parts: Sequence[str], make: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Numbers by name, measured on `model`: kept from an earlier time, or measured now and kept.

        Args:
            what: What they are.
            model: The model.
            parts: What else they hang on.
            make: Measures them.
        """
        if self._folder is None:
            return make()
        path = (self._folder / self._key(what, *_identity(model), *parts)).with_suffix(".json")
        kept = read_record(path)
        if isinstance(kept, dict) and all(isinstance(value, float) for value in kept.values()):
            return kept
        made = make()
        _write(path, made)
        return made

    def _key(self, *parts: str) -> str:
        state = hashlib.sha256()
        for part in (str(FORMAT), version(), *self._context, *parts):
            state.update(hashlib.sha256(part.encode()).digest())
        return f"{parts[0]}-{state.hexdigest()[:24]}"


def _identity(model: ir.Model) -> tuple[str, ...]:
    """The content of a model, and the names of its nodes, by which passes are told what to do."""
    return fingerprint(model), *(node.name or "" for node in nodes(model))


def _record(result: PipelineResult) -> _RunRecord:
    names = _PassRecord.__dataclass_fields__
    records = tuple(_PassRecord(**{name: getattr(each, name) for name in names}) for each in result.results)
    return _RunRecord(records, result.journal, dict(result.timings), result.judgement)


def _read_run(stem: Path) -> PipelineResult | None:
    """A result that was written whole, or None: the record comes last, and vouches for the model."""
    table = read_record(stem.with_suffix(".json"))
    if not isinstance(table, dict):
        return None
    try:
        record: _RunRecord = build(_RunRecord, table)
        model = load(stem.with_suffix(".onnx"))
    except OnnxqError:
        return None
    results = tuple(
        PassResult(model=model, **{name: getattr(each, name) for name in _PassRecord.__dataclass_fields__})
        for each in record.results
    )
    return PipelineResult(model, results, record.journal, record.timings or {}, record.judgement)


def _write(path: Path, value: object) -> None:
    """Keep a record.

    Raises:
        OutputError: No space, or no permission.
    """
    try:
        write_record(path, value)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", slug="cannot-write") from error
