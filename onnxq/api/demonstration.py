"""The whole story on a small model that ships with onnxq."""

from __future__ import annotations

import time
from pathlib import Path

import onnx_ir as ir

from onnxq.api import records
from onnxq.api.optimization import optimize
from onnxq.api.stage import Progress, silent
from onnxq.calibration import DataOptions, collect, open_data
from onnxq.demo import INPUT, OUTPUT, load_calibration, load_test, model_path
from onnxq.errors import VerificationFailed
from onnxq.files import load, to_bytes
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import run
from onnxq.recipe import OptimizeSettings
from onnxq.report.page import html_page
from onnxq.report.results import DemoResult
from onnxq.report.rows import DemoRow
from onnxq.runtime import measure_latency, open_session
from onnxq.verify import compare

BATCH = 64


def demo(*, report: Path, progress: Progress | None = None) -> DemoResult:
    """Read handwritten digits three ways: fp32, plain min-max INT8, and INT8 by onnxq.

    Args:
        report: Where the page of the optimized model is written.
        progress: Called with a stage in words, steps done and steps in all.
    """
    started = time.perf_counter()
    told = progress or silent
    original = load(model_path())
    images, labels = load_test()
    result = optimize(model_path(), load_calibration(), settings=OptimizeSettings(), progress=told)
    models = {"fp32": original, "plain INT8": _plain(original), "onnxq": result.model}
    told("reading digits", 0, 0)
    logits = {name: open_session(model).run(images)[OUTPUT] for name, model in models.items()}
    told("timing", 0, 0)
    threads = records.usable_threads(None)
    latencies = measure_latency(models, shapes={INPUT: (BATCH, 8, 8)}, threads=threads, seconds=0.5)
    rows = []
    for name, model in models.items():
        closeness = compare({OUTPUT: logits["fp32"]}, {OUTPUT: logits[name]}).outputs[OUTPUT]
        rows.append(
            DemoRow(
                model=name,
                accuracy=float((logits[name].argmax(axis=1) == labels).mean()),
                cosine=None if name == "fp32" else closeness.cosine_mean,
                sqnr_db=None if name == "fp32" else closeness.sqnr_db,
                median_ms=latencies[name].median_ms,
                ratio=None if name == "fp32" else latencies[name].speedup_least,
                size_bytes=len(to_bytes(model)),
                least_ms=latencies[name].least_ms,
            )
        )
    _write(report, html_page(result.report))
    return DemoResult(
        machine=records.machine_record(threads),
        rows=tuple(rows),
        samples=len(labels),
        seconds=time.perf_counter() - started,
        report_path=str(report),
    )


def _plain(original: ir.Model) -> ir.Model:
    """Min-max INT8 of every linear as it comes, which is what a first attempt looks like."""
    source = open_data(load_calibration(), original, DataOptions(batch_size=BATCH))
    result = run(
        original,
        [QuantizeLinears()],
        gather=lambda model, wanted: collect(model, source, wanted, cache=False),
        verify="never",
    )
    if result.rolled_back:
        raise VerificationFailed(f"plain quantization failed: {result.rolled_back}", slug="demo")
    return result.model


def _write(path: Path, page: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
