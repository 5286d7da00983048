"""onnxq and the tools of others on the same inputs in the same run: cost, tasks, latency.

    python -m benchmarks.rivals minilm-torchscript minilm-dynamo vit smollm2 [--only NAME ...] [--rounds 5]
    python -m benchmarks.rivals minilm-torchscript --append --rounds 1 [--shapes 8x128]

Who takes part is in `benchmarks.contestants`. Each file is made in a process of its own by the tool's own
environment, judged on data that it was not calibrated on, and timed in processes of its own that take turns.
Files of rivals and scores are kept in the cache; ours is made anew whenever the code of onnxq has changed.
Results go to benchmarks/results/SUBJECT.json. `--append` makes and judges nothing: it times the files of that
result once more and adds what it finds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.artefacts import Row, code_fingerprint, find_or_make
from benchmarks.contestants import CONTESTANTS, taking_part
from benchmarks.data import fingerprint
from benchmarks.environments import ENVIRONMENTS
from benchmarks.export import BenchmarkError
from benchmarks.judging import Judge
from benchmarks.models import cache_folder
from benchmarks.rounds import THREADS, Entry, append, time_round
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.tasks import TASKS
from onnxq.runtime.machine import read_machine

RESULTS = Path(__file__).parent / "results"
Result = dict[str, Any]


def enter(name: str, subject: Subject, judge: Judge) -> Row:
    """Make and judge one contestant; what fails is a row that says why."""
    contestant = CONTESTANTS[name]
    row: Row = {"call": contestant.call, "runtime": contestant.runtime.name}
    row |= {"settings": dict(contestant.runtime.settings)} if contestant.runtime.settings else {}
    try:
        artefact = find_or_make(name, subject)
        row |= artefact.cost
        if artefact.there:
            row["file"] = str(artefact.path.relative_to(cache_folder()))
            row["scores"] = judge(Entry(artefact.path, contestant.runtime))
    except BenchmarkError as error:
        row["failure"] = str(error)
    return row


def compete(name: str, chosen: Sequence[str], tasks: Sequence[str] = ()) -> Result:
    """Make and judge the contestants of one subject.

    Args:
        name: Of the subject.
        chosen: Names of contestants; the original always takes part.
        tasks: What they are judged by; all tasks of the subject if empty.

    Returns:
        What goes into its JSON file, without latency.
    """
    subject, rows = SUBJECTS[name], {}
    judge = Judge(subject, tasks)
    for each in taking_part(subject):
        if each in chosen or each.startswith("fp32"):
            rows[each] = enter(each, subject, judge)
            print(f"{name} {each}: {_brief(rows[each])}", flush=True)
    return {"subject": name, "environment": environment(), "data": fingerprint(subject.model), "rows": rows}


def time_again(result: Result, rounds: int, seconds: float, shapes: Sequence[str] = ()) -> None:
    """Add rounds of timing to a result, at all shapes of its subject or those named."""
    subject, rows = SUBJECTS[result["subject"]], result["rows"]
    entries = {
        name: Entry(cache_folder() / row["file"], CONTESTANTS[name].runtime)
        for name, row in rows.items()
        if "file" in row and "failure" not in row
    }
    for shape in subject.timed:
        if shapes and shape not in shapes:
            continue
        for _ in range(rounds):
            done = rows["fp32"].get("latency", {}).get(shape, {}).get("processes", [])
            backwards = bool(len(done) % 2)
            append(rows, shape, time_round(entries, subject.feeds(shape), seconds, backwards=backwards))


def _brief(row: Mapping[str, Any]) -> str:
    return str(row.get("failure") or next(iter(row["scores"].values())))


def environment() -> dict[str, Any]:
    """The processor and the versions that decide the figures."""
    machine = read_machine()
    return {
        "cpu": machine.cpu,
        "features": list(machine.features),
        "cores": machine.cores,
        "threads": THREADS,
        "versions": {name: _version(name) for name in ("onnxruntime", "onnx", "onnx-ir", "numpy", "onnxq")},
        "code": code_fingerprint(),
        "environments": {name: list(each.packages) for name, each in ENVIRONMENTS.items()},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare onnxq with the tools of others.")
    parser.add_argument("subjects", nargs="+", choices=SUBJECTS, metavar="SUBJECT")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=(), help="judge only by these")
    parser.add_argument("--append", action="store_true", help="only add rounds to the result that is there")
    parser.add_argument("--rounds", type=int, default=5, help="processes timed a model and shape; 0 for none")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured time of each process")
    parser.add_argument("--shapes", nargs="+", default=(), help="time only at these")
    parser.add_argument("--remark", help="what a reader should know of this run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args(words)


def main() -> None:
    """Run the competitions named on the command line and write a file for each."""
    asked = parse(sys.argv[1:])
    asked.results.mkdir(parents=True, exist_ok=True)
    for name in asked.subjects:
        file = asked.results / f"{name}.json"
        result = json.loads(file.read_text()) if asked.append else compete(name, asked.only, asked.tasks)
        result |= {"remark": asked.remark} if asked.remark else {}
        time_again(result, asked.rounds, asked.seconds, asked.shapes)
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(file)


if __name__ == "__main__":
    main()
