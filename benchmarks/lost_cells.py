"""Where somebody else is better than onnxq, said in words: every column, every runtime.

Our one file is held against every other file that the same runtime runs, and our file in ONNX Runtime against
what OpenVINO reaches. A latency that is worse by less than the spread of either is lost, and says so.
"""

from __future__ import annotations

from benchmarks.columns import COST, Column, Row, Rows, latency_columns, originals, score_columns, shapes_of

OURS = {"onnxruntime": "onnxq", "openvino": "openvino-onnxq"}
"""Our contestant in each runtime."""
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def lost_cells(rows: Rows) -> str:
    """A list for one subject, or a sentence if nothing is lost; empty without ours."""
    parts = []
    for theirs in NAMES:
        for runtime in NAMES:
            if (runtime, theirs) == ("openvino", "onnxruntime") or OURS[runtime] not in rows:
                continue
            rivals = _rivals(rows, theirs)
            if not rivals or "failure" in rows[OURS[runtime]]:
                continue
            parts.append(_against(rows, OURS[runtime], rivals, f"{NAMES[runtime]} against {NAMES[theirs]}"))
    return "\n\n".join(parts)


def _rivals(rows: Rows, runtime: str) -> list[str]:
    """Quantized files of others in a runtime, and in OpenVINO the original too: it runs that in bfloat16."""
    skipped = originals(rows) if runtime == "onnxruntime" else set()
    return [
        name
        for name, row in rows.items()
        if row.get("runtime", "onnxruntime") == runtime and "onnxq" not in name and name not in skipped
    ]


def _against(rows: Rows, ours: str, rivals: list[str], title: str) -> str:
    quality = [*score_columns(rows), *(each for shape in shapes_of(rows) for each in _times(shape))]
    original = originals(rows)
    lost = []
    for column in [*quality, *COST]:
        others = rivals if column.path[0] == "latency" else [each for each in rivals if each not in original]
        if line := _lost(rows, ours, others, column):
            lost.append(line)
    return f"`{ours}` in {title}: " + ("\n\n" + "\n".join(lost) if lost else "no lost cell.")


def _times(shape: str) -> list[Column]:
    return [each for each in latency_columns(shape) if each.better]


def _lost(rows: Rows, ours: str, rivals: list[str], column: Column) -> str:
    """One line if a rival prints a better figure than ours."""
    own = column.value(rows[ours])
    if own is None:
        return ""
    best = column.best(rows, [ours, *rivals])
    if ours in best:
        return ""
    title = f"{column.title} at {column.path[1]}" if column.path[0] == "latency" else column.title
    winner = rows[best[0]]
    line = f"- **{title}**: `{best[0]}` {column.cell(winner)}, ours {column.cell(rows[ours])}"
    return line + (" (within the spread)" if _in_spread(column, winner, rows[ours]) else "")


def _in_spread(column: Column, winner: Row, own: Row) -> bool:
    if column.path[0] != "latency":
        return False
    spread = max(each["latency"][column.path[1]]["spread"] for each in (winner, own))
    return bool(column.value(own) / column.value(winner) - 1 <= spread)
