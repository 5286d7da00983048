"""Results as Markdown: every figure in its column, nothing where there is none."""

from __future__ import annotations

import json

from benchmarks import table

LATENCY = {"least_ms": 10.0, "median_ms": 11.0, "spread": 0.25, "speedup_least": 2.5, "speedup_median": 2.0}
RESULT = {
    "subject": "minilm",
    "environment": {"cpu": "A", "features": ["avx2"], "threads": 2, "versions": {"onnx": "1"}},
    "data": "0123456789abcdef",
    "rows": {
        "fp32": {"call": "the source model", "scores": {"sentences": {"cosine_mean": 1.0}}},
        "fp32-noskip": {"call": "the source model", "latency": {"8x128": LATENCY}},
        "ours": {
            "call": "a | b",
            "seconds": 12.0,
            "scores": {"sentences": {"cosine_mean": 0.99612}, "retrieval": {"recall_1": 0.5}},
            "latency": {"8x128": LATENCY},
        },
        "broken": {"call": "c", "seconds": 3.0, "failure": "ValueError: no"},
    },
}
RESULT["rows"]["fp32"]["latency"] = {"8x128": LATENCY}


def lines_of(page: str, start: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(start)]


def test_scores_stand_under_their_headings():
    page = table.render([RESULT])
    assert "| contestant | build s | peak MB | file MB | cosine | recall@1 |" in page
    assert lines_of(page, "| `ours`")[0] == "| `ours` | 12 |  |  | **0.99612** | **50.0%** |"


def test_contestant_without_figures_has_no_line():
    fidelity, latency = table.render([RESULT]).split("### Latency at 8x128")
    assert not lines_of(fidelity, "| `fp32-noskip`")
    assert lines_of(latency, "| `fp32-noskip`")[0] == "| `fp32-noskip` | 10.00 | 11.00 | 25% | 2.50 | 2.00 |"


def test_failures_are_listed_with_their_reason():
    assert "- `broken`: ValueError: no" in table.render([RESULT])


def test_bars_in_calls_do_not_split_cells():
    assert "`a \\| b`" in table.render([RESULT])


def test_memory_has_a_line_for_each_count():
    rows = [
        {"samples": 32, "peak_mb": 400.4, "seconds": 3.21},
        {"samples": 512, "peak_mb": 401, "seconds": 50},
    ]
    page = table.render_memory({"subject": "minilm", "rows": rows})
    assert lines_of(page, "| 32") == ["| 32 | 400 | 3.2 |"]
    assert lines_of(page, "| 512") == ["| 512 | 401 | 50.0 |"]


def test_best_figure_is_bold_and_the_original_wins_nothing():
    better = {"scores": {"sentences": {"cosine_mean": 0.999}}, "call": "d", "file_mb": 2.0, "seconds": 99.0}
    page = table.render([RESULT | {"rows": RESULT["rows"] | {"better": better}}])
    assert lines_of(page, "| `fp32`")[0] == "| `fp32` |  |  |  | 1.00000 |  |"
    assert lines_of(page, "| `better`")[0] == "| `better` | 99 |  | **2.0** | **0.99900** |  |"
    assert lines_of(page, "| `ours`")[0] == "| `ours` | 12 |  |  | 0.99612 | **50.0%** |"


def test_figures_that_print_the_same_are_all_best():
    same = {"scores": {"sentences": {"cosine_mean": 0.996121}}, "call": "d"}
    page = table.render([RESULT | {"rows": RESULT["rows"] | {"same": same}}])
    assert page.count("**0.99612**") == 2


def test_versions_of_other_environments_are_named():
    there = RESULT["environment"] | {"environments": {"nncf": ["nncf==3.4.0", "onnx==1"]}, "code": "abc"}
    page = table.render([RESULT | {"environment": there}])
    assert "onnx 1, code abc; nncf: nncf 3.4.0, onnx 1; data 0123456789ab." in page


def test_results_of_another_kind_have_no_table(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(RESULT))
    (tmp_path / "b.json").write_text(json.dumps({"speeds": [1, 2]}))
    assert table.page(tmp_path) == table.render([RESULT])


def test_layers_have_a_line_for_each_shape():
    fp32 = {"least_ms": 150.0, "median_ms": 160.0, "speedup_least": 1.0, "speedup_median": 1.0}
    ours = {"least_ms": 50.0, "median_ms": 64.0, "speedup_least": 3.0, "speedup_median": 2.5}
    row = {"shape": "1x128", "fp32": fp32, "onnxq": ours}
    page = table.render_layers({"stack": {"layers": 12}, "environment": RESULT["environment"], "rows": [row]})
    assert lines_of(page, "| 1x128") == ["| 1x128 | 150.0 | 160.0 | 50.0 | 64.0 | 3.00 | 2.50 |"]


def test_accounts_are_parts_of_the_page(tmp_path):
    peak = {"before": 800.0, "after": 700.0}
    account = {
        "shape": "1x128",
        "least_ms": 10.0,
        "peaks_gop_per_s": {"integer": peak, "float": peak},
        "operators": {
            "MatMul": {"nodes": 2, "ms": 4.0, "gop": 1.6},
            "Add": {"nodes": 1, "ms": 1.0, "gop": 0.0},
        },
    }
    result = {"environment": RESULT["environment"], "accounts": {"ours": [account]}}
    (tmp_path / "account.json").write_text(json.dumps(result))
    page = table.page(tmp_path)
    assert "`ours` at 1x128" in page
    assert lines_of(page, "| MatMul") == ["| MatMul | 2 | 4.00 | 80.0% | 50% |"]
    assert lines_of(page, "| Add") == ["| Add | 1 | 1.00 | 20.0% |  |"]
