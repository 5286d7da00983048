"""Every method by itself, the papers' combinations and ours, on the real models at 8, 6 and 4 bits.

    python -m benchmarks.methods MODEL ... [--rows NAME ...] [--bits W8A8 ...] [--ablate] [--make | --latency]

MODEL is minilm, vit or smollm2; the rows are in `benchmarks.recipes`. Bits that no kernel has are shown by
the 8-bit kernels with codes that use a part of their range. Each figure goes to
benchmarks/results/methods-MODEL.json as soon as it is there: a run that was stopped goes on where it was, and
a row is measured again only when its passes, the data or the code have changed (`--keep` forgives the code).
"""

from __future__ import annotations

import argparse
import functools
import gc
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.artefacts import Row
from benchmarks.data import fingerprint
from benchmarks.export import Arrays
from benchmarks.ledger import Ledger, code_fingerprint, describe, digest
from benchmarks.models import cache_folder
from benchmarks.planned import Bits
from benchmarks.recipes import ABLATIONS, BITS, ROWS, Made, Recipe
from benchmarks.rivals import RESULTS
from benchmarks.rounds import THREADS
from benchmarks.states import Workshop, quantize
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.tasks import TASKS, Scores, Task, answer_language
from onnxq.files import save
from onnxq.passes.layout import finishing
from onnxq.pipeline import run
from onnxq.runtime import Session, SessionSettings, open_session
from onnxq.runtime.timing import measure_latency

CHUNKS = 8
"""Chunks of text that SmolLM2 is judged on here; every row of it takes minutes."""
SECONDS = 0.8
"""Measured time of each process where rows are timed: enough for tens of runs."""
YIELD = (("session.intra_op.allow_spinning", "0"),)
"""Lets threads sleep while they wait: judging need not be fast, and other work may run beside it."""
LATENCY = (
    *("minmax", "shift-scale-output", "insert-scale", "os-plus", "split-channels", "split-os-plus"),
    *("disassemble", "peg", "groups", "per-token", "rotate", "rotate-static", "blocks", "ours"),
)
"""Rows that are timed, the first being what the others are held against: rounding otherwise costs nothing."""


@dataclass(frozen=True)
class Judged:
    """A model, what it is judged by, and how.

    Attributes:
        subject: Its file and data.
        task: What it is asked to do.
        error: One number of the scores, 0 for the original: what rows are ordered by.
        states: States of the model that are kept in memory.
        clipping: Samples that token-wise clipping is judged on.
        rows: Rows that are measured unless others are named.
    """

    subject: Subject
    task: Task
    error: Callable[[Scores], float]
    states: int = 12
    clipping: int = 32
    rows: tuple[str, ...] = tuple(ROWS)


JUDGED: Mapping[str, Judged] = {
    "minilm": Judged(SUBJECTS["minilm-dynamo"], TASKS["sentences"], lambda scores: 1 - scores["cosine_mean"]),
    "vit": Judged(
        SUBJECTS["vit"], TASKS["importance"], lambda scores: 10 ** (-scores.get("sqnr_db", math.inf) / 10)
    ),
    "smollm2": Judged(
        SUBJECTS["smollm2"],
        Task("smollm2", functools.partial(answer_language, chunks=CHUNKS), TASKS["language"].score),
        lambda scores: scores["perplexity_ratio"] - 1,
        states=2,
        clipping=4,
    ),
}


@dataclass(frozen=True)
class Runner:
    """A session as tasks want it: batch in, only output out."""

    session: Session

    def __call__(self, feeds: Arrays) -> np.ndarray:
        (output,) = self.session.run({port.name: feeds[port.name] for port in self.session.inputs}).values()
        found: np.ndarray = output
        return found


class Judge:
    """Scores models against the original, which is asked once."""

    def __init__(self, judged: Judged) -> None:
        self.judged = judged
        self.reference = self._answer(judged.subject.path)

    def __call__(self, model: Any) -> Scores:
        """Score a model in memory."""
        return self.judged.task.score(self.reference, self._answer(model))

    def _answer(self, model: Any) -> Arrays:
        session = open_session(model, SessionSettings(threads=THREADS, config=YIELD))
        return self.judged.task.answer(Runner(session))


def measure(workshop: Workshop, judge: Judge, recipe: Recipe) -> Row:
    """Make one row's model and score it."""
    begin = time.perf_counter()
    row: Row = {"call": describe(recipe)}
    try:
        made = quantize(workshop, recipe)
        row |= {"build_seconds": round(time.perf_counter() - begin, 1), "products": made.products}
        row |= {"notes": list(made.notes)} if made.notes else {}
        row["scores"] = judge(made.model)
        row["error"] = judge.judged.error(row["scores"])
    except Exception as error:  # one row that fails must not take the others with it
        row["failure"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return row


def run_rows(name: str, chosen: Mapping[str, Made], bits: Iterable[Bits], ledger: Ledger) -> None:
    """Measure what the ledger does not hold yet, one state of the model after the other."""
    judged = JUDGED[name]
    todo = [
        (row, each, recipe)
        for each in bits
        for row, make in chosen.items()
        if (recipe := make(each)) is not None and not ledger.holds(row, each, recipe)
    ]
    if not todo:
        return
    judge = Judge(judged)
    workshop = Workshop.open(judged.subject, judged.states, [recipe for *_, recipe in todo], judged.clipping)
    states = list(dict.fromkeys(recipe.exact for *_, recipe in todo))
    for row, each, recipe in sorted(todo, key=lambda one: states.index(one[2].exact)):
        found = measure(workshop, judge, recipe)
        ledger.note(row, each, found)
        gc.collect()
        print(f"{name} {each} {row}: {found.get('error', found.get('failure'))}", flush=True)


def make_files(name: str, rows: Iterable[str]) -> dict[str, Path]:
    """Files of rows at 8 bits, kept in the cache until passes, code or data change.

    They are spelled as the product leaves them, which changes no number: additions would run on one thread
    otherwise. Weights take their nearest codes: which ones they are is nothing to the clock, and feedback
    takes minutes.
    """
    judged, bits, data = JUDGED[name], BITS["W8A8"], fingerprint(JUDGED[name].subject.model)
    recipes = {
        row: replace(made, rounding=replace(made.rounding, rounding="nearest"))
        for row in rows
        if (made := ROWS[row][1](bits)) is not None
    }
    folder = cache_folder() / "methods"
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        row: folder / f"{name}-{row}-{digest([describe(made), code_fingerprint(), data])}.onnx"
        for row, made in recipes.items()
    }
    missing = [row for row, path in files.items() if not path.exists()]
    if missing:
        workshop = Workshop.open(judged.subject, judged.states, [recipes[row] for row in missing])
        for row in missing:
            quantized = quantize(workshop, recipes[row]).model
            save(run(quantized, finishing("kernels"), verify="never").model, files[row])
            print(files[row], flush=True)
    return files


def time_rows(name: str, ledger: Ledger, rows: Iterable[str], shape: str, rounds: int) -> None:
    """Time rows at 8 bits, processes taking turns, and note ratios to the first."""
    files: dict[str, Any] = dict(make_files(name, rows))
    feeds = JUDGED[name].subject.feeds(shape)
    found = measure_latency(files, feeds, threads=THREADS, rounds=rounds, seconds=SECONDS)
    first = next(iter(found.values()))
    ledger.content.setdefault("latency", {})[shape] = {
        "cpu": ledger.cpu,
        "rounds": rounds,
        "code": ledger.code,
        "rows": {
            row: {
                "least_ms": round(each.least_ms, 3),
                "median_ms": round(each.median_ms, 3),
                "spread": round(each.spread, 3),
                "ratio_least": round(each.least_ms / first.least_ms, 4),
                "ratio_median": round(each.median_ms / first.median_ms, 4),
            }
            for row, each in found.items()
        },
    }
    ledger.write()


def _blank(name: str) -> dict[str, Any]:
    """What results of a model start from; other data begins anew."""
    return {"data": fingerprint(JUDGED[name].subject.model), "chunks": CHUNKS}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure every method on the benchmark models.")
    parser.add_argument("models", nargs="+", choices=JUDGED, metavar="MODEL")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *ABLATIONS], help="only these")
    parser.add_argument("--bits", nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--ablate", action="store_true", help="ours less each ingredient, besides the rows")
    parser.add_argument("--keep", action="store_true", help="let rows stand that older code gave")
    parser.add_argument("--make", action="store_true", help="make the files that --latency times, and end")
    parser.add_argument("--latency", action="store_true", help="time rows at W8A8 instead")
    parser.add_argument("--shape", help="to time at; the model's first one if not given")
    parser.add_argument("--rounds", type=int, default=4, help="processes timed a row")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args(words)


def main() -> None:
    """Measure what the command line names."""
    asked = parse(sys.argv[1:])
    every = {name: make for name, (_, make) in {**ROWS, **ABLATIONS}.items()}
    for name in asked.models:
        ledger = Ledger(asked.results / f"methods-{name}.json", name, _blank(name), keep=asked.keep)
        if asked.make:
            make_files(name, asked.rows or LATENCY)
            continue
        if asked.latency:
            shape = asked.shape or next(iter(JUDGED[name].subject.timed))
            time_rows(name, ledger, asked.rows or LATENCY, shape, asked.rounds)
            continue
        names = asked.rows or [*JUDGED[name].rows, *(ABLATIONS if asked.ablate else ())]
        run_rows(name, {row: every[row] for row in names}, [BITS[each] for each in asked.bits], ledger)
        print(ledger.path)


if __name__ == "__main__":
    main()
