"""Tables of methods: figures in their cells, and a word on the papers' order that is true of the figures."""

from __future__ import annotations

import json

import pytest

from benchmarks import method_table, table

ROWS = {
    "minmax": {
        "W8A8": {"error": 0.006, "scores": {"cosine_min": 0.98}},
        "W4A4": {"error": 0.5, "scores": {}},
    },
    "percentile": {"W8A8": {"error": 0.0059, "scores": {}}, "W4A4": {"error": 0.6, "scores": {}}},
    "os": {"W8A8": {"error": 0.003, "scores": {}}, "W4A4": {"failure": "ValueError: no"}},
    "ours": {"W8A8": {"error": 0.001, "scores": {"cosine_min": 0.999}}},
    "ours-no-split": {"W8A8": {"error": 0.002, "scores": {}}},
}
RESULT = {"methods": "minilm", "rows": ROWS}


@pytest.mark.parametrize(
    ("first", "second", "bits", "wanted"),
    [
        ("minmax", "os", "W8A8", "held (0.50)"),
        ("minmax", "percentile", "W8A8", "even (0.98)"),
        ("minmax", "percentile", "W4A4", "not held (1.20)"),
        ("percentile", "os", "W4A4", ""),
        ("os", "os-plus", "W8A8", ""),
    ],
)
def test_verdict_says_what_the_errors_say(first, second, bits, wanted):
    assert method_table.verdict(ROWS, first, second, bits) == wanted


def test_methods_stand_in_the_order_of_the_recipes_with_their_figures():
    page = method_table.render(RESULT)
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines[:4]] == ["minmax", "percentile", "os", "ours"]
    assert lines[0].endswith("| 0.00600 / 0.9800 | 0.50000 |")
    assert lines[2].endswith("| 0.00300 | failed |")


def test_ablation_gives_the_ratio_to_ours():
    assert "| ours without split | 0.002 (2.00) |  |" in method_table.render(RESULT)


def test_failures_and_findings_are_told():
    page = method_table.render(RESULT, "Because of this.")
    assert "Because of this." in page
    assert "- `os` at W4A4: ValueError: no" in page


def test_latency_stands_beside_the_errors_and_in_a_table_of_its_own():
    times = {"least_ms": 12.0, "ratio_least": 1.2, "ratio_median": 1.25, "spread": 0.03}
    timed = {"8x128": {"cpu": "some processor", "rounds": 4, "rows": {"os": times}}}
    page = method_table.render({**RESULT, "latency": timed})
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert lines[2].endswith("| failed | 1.20 |")
    assert lines[0].endswith("| 0.50000 |  |")
    assert "| `os` | 12.00 | 1.200 | 1.250 | 3% |" in page


def test_page_of_a_folder_holds_methods_and_their_findings(tmp_path):
    (tmp_path / "methods-minilm.json").write_text(json.dumps(RESULT))
    (tmp_path / "methods-minilm.md").write_text("It depends.\n")
    page = table.page(tmp_path)
    assert "## Methods: minilm" in page
    assert "It depends." in page
