"""Where a rival wins, the page says so, for each runtime and with the figures."""

from __future__ import annotations

from benchmarks.lost_cells import lost_cells


def row(cosine: float, least: float, spread: float = 0.05, **more: object):
    latency = {"least_ms": least, "median_ms": least + 1, "spread": spread}
    scores = {"sentences": {"cosine_mean": cosine}}
    return {"file": "a", "seconds": 9, "scores": scores, "latency": {"1x128": latency}, **more}


def rows(**more: object):
    fp32 = {"file": "source", "scores": {"sentences": {"cosine_mean": 1.0}}, "latency": {}}
    return {"fp32": fp32, "ort-dynamic": row(0.99, 8), "onnxq": row(0.999, 7), **more}


def test_nothing_lost_is_said():
    assert lost_cells(rows()) == "`onnxq` in ONNX Runtime against ONNX Runtime: no lost cell."


def test_lost_cell_has_both_figures():
    page = lost_cells(rows(other=row(0.9995, 8)))
    assert "- **cosine**: `other` 0.99950, ours 0.99900" in page
    assert "ms" not in page


def test_latency_within_the_spread_is_lost_and_says_so():
    near, far = rows(other=row(0.9, 6.9, 0.2)), rows(other=row(0.9, 3.0, 0.2))
    assert "- **least ms at 1x128**: `other` 6.90, ours 7.00 (within the spread)" in lost_cells(near)
    assert "`other` 3.00, ours 7.00\n" in lost_cells(far) + "\n"
    assert "within" not in lost_cells(far)


def test_original_wins_nothing_but_time_in_another_runtime():
    bf16 = row(1.0, 5, file="source", runtime="openvino")
    page = lost_cells(rows(**{"openvino-bf16": bf16}))
    assert "`onnxq` in ONNX Runtime against ONNX Runtime: no lost cell." in page
    across = page.split("\n\n", 1)[1]
    assert across.startswith("`onnxq` in ONNX Runtime against OpenVINO:")
    assert "least ms at 1x128" in across
    assert "cosine" not in across


def test_our_file_in_openvino_is_held_against_openvino_alone():
    theirs = row(0.995, 5, runtime="openvino")
    ours = row(0.999, 6, runtime="openvino")
    parts = lost_cells(rows(**{"openvino-nncf": theirs, "openvino-onnxq": ours})).split("`onnxq` in")
    assert "`openvino-onnxq` in OpenVINO against OpenVINO:" in parts[-1]
    assert "`openvino-nncf` 5.00, ours 6.00" in parts[-1]


def test_without_ours_nothing_is_said():
    assert lost_cells({"ort-dynamic": row(0.9, 8)}) == ""


def test_ours_that_failed_is_no_contest():
    assert lost_cells(rows(onnxq={"failure": "error: not faster"})) == ""
