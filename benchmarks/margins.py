"""How far ahead or behind onnxq is: its time and error over those of the best rival of each kind.

Below 1 is ahead. Time is the least of all runs; beside it stands the median of the ratios of single rounds,
whose processes ran next to each other. Error is one number for each model, 0 for the original, so that "a
quarter of its error" is a ratio of 0.25.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.columns import Column, Row, Rows, originals, score_columns, shapes_of
from benchmarks.markdown import table
from benchmarks.rounds import ratio_by_rounds

Scores = Mapping[str, float]
ERRORS: Mapping[str, Callable[[Scores], float]] = {
    "cosine_mean": lambda scores: 1 - scores["cosine_mean"],
    "sqnr_db": lambda scores: float(10 ** (-scores["sqnr_db"] / 10)),
    "perplexity_ratio": lambda scores: scores["perplexity_ratio"] - 1,
}
"""The error of a model by the score that it is made from."""
ERROR_NAMES = {
    "cosine_mean": "1 - cosine",
    "sqnr_db": "noise over signal",
    "perplexity_ratio": "perplexity over fp32's, less 1",
}
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
KINDS: tuple[tuple[str, str, Mapping[str, str], str], ...] = (
    ("onnxq", "onnxruntime", {}, "ONNX Runtime"),
    ("onnxq", "openvino", FLOAT32, "OpenVINO, INT8 and float32"),
    ("onnxq", "openvino", {}, "OpenVINO, INT8 and bfloat16"),
    ("openvino-onnxq", "openvino", FLOAT32, "OpenVINO, INT8 and float32"),
    ("openvino-onnxq-bf16", "openvino", {}, "OpenVINO, INT8 and bfloat16"),
)
"""Our contestant, the runtime of the rivals with its settings, and what the table calls them."""


def margins(rows: Rows) -> str:
    """One table for a subject; empty without ours or without rivals."""
    lines = []
    for ours, runtime, settings, title in KINDS:
        rivals = _quantized(rows, runtime, settings)
        if "scores" not in rows.get(ours, {}) or not rivals:
            continue
        lines += [
            [f"`{ours}`", title, *line]
            for line in [*_times(rows[ours], rivals), *_errors(rows[ours], rivals)]
        ]
    return (
        table(["ours", "against the best in", "what", "theirs", "ours / theirs", "by rounds"], lines)
        if lines
        else ""
    )


def _quantized(rows: Rows, runtime: str, settings: Mapping[str, str]) -> dict[str, Row]:
    skipped = originals(rows)
    return {
        name: row
        for name, row in rows.items()
        if (row.get("runtime", "onnxruntime"), row.get("settings", {})) == (runtime, settings)
        and "onnxq" not in name
        and name not in skipped
    }


def _times(ours: Row, rivals: Rows) -> list[list[str]]:
    lines = []
    for shape in shapes_of({"ours": ours}):
        best = _best(rivals, Column("", ("latency", shape, "least_ms"), ""))
        if best:
            own, theirs = (row["latency"][shape] for row in (ours, rivals[best[0]]))
            paired = ratio_by_rounds(own, theirs)
            cells = f"{own['least_ms'] / best[1]:.2f}", f"{paired:.2f}" if paired else ""
            lines.append([f"time at {shape}", f"`{best[0]}`", *cells])
    return lines


def _errors(ours: Row, rivals: Rows) -> list[list[str]]:
    """The first of `ERRORS` that ours has; rivals are ordered by their score, as the error follows it."""
    for column in score_columns({"ours": ours}):
        name = column.path[-1]
        best = _best(rivals, column) if name in ERRORS else None
        if best:
            theirs, own = (ERRORS[name]({name: value}) for value in (best[1], column.value(ours)))
            return [[ERROR_NAMES[name], f"`{best[0]}`", f"{own / theirs:.2f}" if theirs > 0 else "", ""]]
    return []


def _best(rivals: Rows, column: Column) -> tuple[str, float] | None:
    """The rival with the best figure in a column; of latencies, the least."""
    found = {name: float(value) for name, row in rivals.items() if (value := column.value(row)) is not None}
    better = column.better or -1
    return max(found.items(), key=lambda item: better * item[1]) if found else None
