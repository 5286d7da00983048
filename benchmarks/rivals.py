"""onnxq and ONNX Runtime's own quantizers on the same inputs in the same run: cost, tasks, latency.

    python -m benchmarks.rivals minilm-torchscript minilm-dynamo vit smollm2 [--only NAME ...] [--rounds 5]

Each contestant is built in a process of its own, judged on data that it was not calibrated on, and timed in
processes of its own that take turns. `fp32-noskip` is the original without the fusion of residual additions
into norms, which slows some models down: the honest thing to compare with. Results go to
benchmarks/results/SUBJECT.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import fingerprint
from benchmarks.export import Arrays
from benchmarks.measure import run_measured
from benchmarks.quantizers import CALLS, QUANTIZERS
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.tasks import TASKS
from onnxq.runtime import Session, SessionSettings, open_session
from onnxq.runtime.machine import read_machine
from onnxq.runtime.timing import Contender, Latency, measure_latency

RESULTS = Path(__file__).parent / "results"
THREADS = 2
ONNXQ = {"onnxq": (), "onnxq-qdq": ("--format", "qdq"), "onnxq-int4": ("--weights", "int4")}
"""Our own contestants: options of `onnxq optimize` besides model, data and output."""
YIELD = (("session.intra_op.allow_spinning", "0"),)
"""Lets threads sleep while they wait: judging need not be fast, and other work may run beside it."""
NO_SKIP = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion")
CONTESTANTS = ("fp32", "fp32-noskip", *QUANTIZERS, *ONNXQ)
Row = dict[str, Any]


def build(name: str, subject: Subject, target: Path) -> Row:
    """Make one contestant's model.

    Returns:
        What it cost (`seconds`, `peak_mb`, `file_mb`), or why there is none (`failure`).
    """
    if name.startswith("fp32"):
        return {"call": "the source model"}
    if name in ONNXQ:
        options = [*subject.data_options(), *ONNXQ[name]]
        command = ["onnxq", "optimize", str(subject.path), *options, "-o", str(target), "--json"]
        call = "onnxq optimize MODEL --calib DATA " + " ".join(ONNXQ[name])
    else:
        given = (subject.path, subject.data / "calibration.npz", subject.batch, target)
        command, call = ["benchmarks.quantizers", name, *map(str, given)], CALLS[name]
    done = run_measured([sys.executable, "-m", *command])
    row: Row = {"call": call.strip(), "seconds": round(done.seconds, 1), "peak_mb": round(done.peak_mb)}
    if done.code or not target.exists():
        return row | {"failure": done.failure}
    return row | {"file_mb": round(target.stat().st_size / 1e6, 1)} | _own_report(name, done.output)


def _own_report(name: str, output: str) -> Row:
    """Keep of our report what says how the model was made; the rest is large, or measured again here."""
    if name not in ONNXQ:
        return {}
    report = json.loads(output)
    return {"report": {key: report[key] for key in ("passes", "kernels", "goals") if key in report}}


def judge(models: Mapping[str, Path], subject: Subject, rows: Mapping[str, Row]) -> None:
    """Score every model on the subject's tasks, against the answers of the original."""
    reference: dict[str, Arrays] = {}
    for name, path in models.items():
        session = open_session(path, SessionSettings(threads=THREADS, config=YIELD))
        answers = {task: TASKS[task].answer(Runner(session)) for task in subject.tasks}
        reference = reference or answers
        rows[name]["scores"] = {task: TASKS[task].score(reference[task], answers[task]) for task in answers}
        del session
        gc.collect()


@dataclasses.dataclass(frozen=True)
class Runner:
    """A session as tasks want it: batch in, only output out."""

    session: Session

    def __call__(self, feeds: Arrays) -> np.ndarray:
        (output,) = self.session.run({port.name: feeds[port.name] for port in self.session.inputs}).values()
        found: np.ndarray = output
        return found


def time_all(models: Mapping[str, Path], subject: Subject, rows: Mapping[str, Row], rounds: int) -> None:
    """Time every model at every shape, against fp32."""
    contenders: dict[str, Path | Contender] = {}
    for name, path in models.items():
        contenders[name] = path
        if name == "fp32":
            settings = SessionSettings(disabled_optimizers=NO_SKIP)
            contenders["fp32-noskip"] = Contender(path, settings)
    for shape in subject.timed:
        found = measure_latency(contenders, subject.feeds(shape), threads=THREADS, rounds=rounds)
        for name, latency in found.items():
            rows[name].setdefault("latency", {})[shape] = _plain(latency)


def _plain(latency: Latency) -> Row:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(latency).items()
    }


def compete(name: str, chosen: Sequence[str], rounds: int) -> dict[str, Any]:
    """Run one subject's whole competition.

    Args:
        name: Of the subject.
        chosen: Names of contestants; the original always takes part.
        rounds: Processes timed a model and shape; 0 for no timing.

    Returns:
        What goes into its JSON file.
    """
    subject = SUBJECTS[name]
    wanted = ["fp32", "fp32-noskip", *(each for each in CONTESTANTS[2:] if each in chosen)]
    with tempfile.TemporaryDirectory(prefix="onnxq-rivals-") as scratch:
        rows = {each: build(each, subject, Path(scratch) / f"{each}.onnx") for each in wanted}
        models = {"fp32": subject.path}
        models |= {each: Path(scratch) / f"{each}.onnx" for each in rows if "file_mb" in rows[each]}
        judge(models, subject, rows)
        if rounds:
            time_all(models, subject, rows, rounds)
    return {"subject": name, "environment": environment(), "data": fingerprint(subject.model), "rows": rows}


def environment() -> dict[str, Any]:
    """The processor and the versions that decide the figures."""
    machine = read_machine()
    return {
        "cpu": machine.cpu,
        "features": list(machine.features),
        "cores": machine.cores,
        "threads": THREADS,
        "versions": {name: _version(name) for name in ("onnxruntime", "onnx", "onnx-ir", "numpy", "onnxq")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Run the competitions named on the command line and write a file for each."""
    parser = argparse.ArgumentParser(description="Compare onnxq with ONNX Runtime's own quantizers.")
    parser.add_argument("subjects", nargs="+", choices=SUBJECTS, metavar="SUBJECT")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--rounds", type=int, default=5, help="processes timed a model and shape; 0 for none")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    chosen = parser.parse_args()
    chosen.results.mkdir(parents=True, exist_ok=True)
    for name in chosen.subjects:
        found = compete(name, chosen.only, chosen.rounds)
        (chosen.results / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(chosen.results / f"{name}.json")


if __name__ == "__main__":
    main()
