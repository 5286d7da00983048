"""Columns of the tables: a heading, where in a row the figure is, how it is written, which end wins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Rows = Mapping[str, Row]


@dataclass(frozen=True)
class Column:
    """One figure of every row.

    Attributes:
        title: Its heading.
        path: Keys that lead to it.
        form: How it is written.
        better: 1 if more is better, -1 if less is, 0 if it is no contest.
    """

    title: str
    path: tuple[str, ...]
    form: str
    better: int = 0

    def value(self, row: Row) -> Any:
        """Follow the path into a row; None where it ends early."""
        found: Any = row
        for key in self.path:
            found = found.get(key)
            if found is None:
                return None
        return found

    def cell(self, row: Row) -> str:
        """The figure as it is printed; empty if there is none."""
        found = self.value(row)
        return "" if found is None else self.form.format(found)

    def best(self, rows: Rows, names: Collection[str]) -> list[str]:
        """Those of `names` that nobody among them beats in print; more than one where they print the same."""
        found = {name: value for name in names if (value := self.value(rows[name])) is not None}
        if not self.better or not found:
            return []
        top = max(found.values(), key=lambda value: self.better * value)
        return [name for name in found if self.cell(rows[name]) == self.form.format(top)]


SCORES = {
    "cosine_mean": ("cosine", "{:.5f}", 1),
    "cosine_min": ("lowest", "{:.5f}", 1),
    "token_cosine_mean": ("token cosine", "{:.5f}", 1),
    "token_cosine_min": ("lowest token", "{:.5f}", 1),
    "similarity_error_max": ("similarity error", "{:.4f}", -1),
    "recall_1": ("recall@1", "{:.1%}", 1),
    "recall_10": ("recall@10", "{:.1%}", 1),
    "sqnr_db": ("SQNR dB", "{:.2f}", 1),
    "iou": ("IoU@0.5", "{:.4f}", 1),
    "mean_error": ("mean error", "{:.4f}", -1),
    "perplexity": ("perplexity", "{:.2f}", -1),
    "perplexity_ratio": ("x fp32", "{:.3f}", -1),
    "top1_same": ("same top-1", "{:.1%}", 1),
}
"""Heading, form and better end of each score, in the order of the columns."""
COST = (
    Column("build s", ("seconds",), "{:.0f}", -1),
    Column("peak MB", ("peak_mb",), "{:.0f}", -1),
    Column("file MB", ("file_mb",), "{:.1f}", -1),
)
_TIMES = (
    ("least ms", "least_ms", "{:.2f}", -1),
    ("median ms", "median_ms", "{:.2f}", -1),
    ("spread", "spread", "{:.0%}", 0),
    ("x least", "speedup_least", "{:.2f}", 0),
    ("x median", "speedup_median", "{:.2f}", 0),
)


def score_columns(rows: Rows) -> list[Column]:
    """Those scores that any row has."""
    tasks = {
        score: task
        for row in rows.values()
        for task in row.get("scores", {})
        for score in row["scores"][task]
    }
    return [
        Column(title, ("scores", tasks[score], score), form, better)
        for score, (title, form, better) in SCORES.items()
        if score in tasks
    ]


def latency_columns(shape: str) -> list[Column]:
    """Latency at one shape."""
    return [Column(title, ("latency", shape, key), form, better) for title, key, form, better in _TIMES]


def shapes_of(rows: Rows) -> list[str]:
    """The shapes that any row was timed at."""
    return list(dict.fromkeys(shape for row in rows.values() for shape in row.get("latency", {})))


def originals(rows: Rows) -> set[str]:
    """Rows that run the source model itself: they are what others are held against, and win nothing."""
    source = rows.get("fp32", {}).get("file")
    return {
        name
        for name, row in rows.items()
        if name.startswith("fp32") or (source and row.get("file") == source)
    }


def without(rows: Rows, names: Iterable[str]) -> list[str]:
    """The other rows."""
    left = set(names)
    return [name for name in rows if name not in left]
