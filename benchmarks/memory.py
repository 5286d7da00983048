"""Whether calibration streams: its peak memory on MiniLM from 32 to 512 samples, a process each.

    python -m benchmarks.memory [SAMPLES ...]

Writes benchmarks/results/memory.json. Flat means that the last figure is about the first.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.data import load, prepare, save
from benchmarks.export import BenchmarkError
from benchmarks.measure import run_measured
from benchmarks.rivals import RESULTS, environment
from benchmarks.subjects import SUBJECTS

SUBJECT = "minilm-torchscript"
SAMPLES = (32, 64, 128, 256, 512)


def measure(samples: int, folder: Path) -> dict[str, Any]:
    """Calibrate on so many descriptions and tell what it took.

    Raises:
        BenchmarkError: The calibration failed.
    """
    # A file of its own for each count, so that no cache of statistics can stand in for the work.
    data = folder / f"{samples}.npz"
    save(data, {name: array[:samples] for name, array in load(prepare("minilm") / "many.npz").items()})
    options = ["--calib", str(data), "-o", str(folder / "statistics.npz"), "--batch-size", "8"]
    command = [sys.executable, "-m", "onnxq", "calibrate", str(SUBJECTS[SUBJECT].path), *options]
    done = run_measured(command)
    if done.code:
        raise BenchmarkError(f"calibrating on {samples} samples: {done.failure}")
    return {"samples": samples, "peak_mb": round(done.peak_mb, 1), "seconds": round(done.seconds, 1)}


def main() -> None:
    """Measure the counts on the command line, or all."""
    counts = [int(word) for word in sys.argv[1:]] or list(SAMPLES)
    with tempfile.TemporaryDirectory(prefix="onnxq-memory-") as folder:
        rows = [measure(count, Path(folder)) for count in counts]
    found = {"subject": SUBJECT, "environment": environment(), "rows": rows}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(found, indent=1) + "\n")
    print(RESULTS / "memory.json")


if __name__ == "__main__":
    main()
