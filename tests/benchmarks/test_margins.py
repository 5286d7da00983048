"""Ratios to the best rival: the right rival, the right way round."""

from __future__ import annotations

import pytest

from benchmarks.margins import margins


def row(cosine: float, least: float, median: float, runtime: str = "onnxruntime", file: str = "a"):
    process = {"round": 0, "median_ms": median}
    latency = {"1x128": {"least_ms": least, "median_ms": median, "processes": [process]}}
    return {
        "file": file,
        "runtime": runtime,
        "scores": {"sentences": {"cosine_mean": cosine}, "retrieval": {"recall_1": 0.5}},
        "latency": latency,
    }


@pytest.fixture
def rows():
    return {
        "fp32": row(1.0, 4, 4, file="source"),
        "quick": row(0.98, 10, 14),
        "steady": row(0.99, 12, 12),
        "onnxq": row(0.9975, 8, 9),
        "broken": {"failure": "no", "runtime": "onnxruntime"},
    }


def test_each_figure_is_held_against_the_best_in_it(rows):
    page = margins(rows)
    assert "| `onnxq` | ONNX Runtime | time at 1x128 | `quick` | 0.80 | 0.64 |" in page
    assert "| 1 - cosine | `steady` | 0.25 |" in page
    assert "OpenVINO" not in page


def test_source_model_is_no_quantized_rival(rows):
    rows["openvino-bf16"] = row(1.0, 1, 1, "openvino", "source")
    rows["openvino-nncf"] = row(0.995, 16, 18, "openvino")
    line = next(line for line in margins(rows).splitlines() if "INT8 and bfloat16 | time" in line)
    assert "| `openvino-nncf` | 0.50 | 0.50 |" in line


def test_precisions_are_held_apart(rows):
    exact = row(0.995, 16, 18, "openvino") | {"settings": {"INFERENCE_PRECISION_HINT": "f32"}}
    rows |= {"openvino-nncf": exact, "openvino-nncf-bf16": row(0.995, 4, 4, "openvino")}
    lines = [line for line in margins(rows).splitlines() if "OpenVINO" in line and "time" in line]
    assert [line.split(" | ")[3:5] for line in lines] == [
        ["`openvino-nncf`", "0.50"],
        ["`openvino-nncf-bf16`", "2.00"],
    ]


def test_noise_is_a_ratio_of_powers():
    vit = {"scores": {"importance": {"sqnr_db": 30.0}}}
    ours = {"scores": {"importance": {"sqnr_db": 40.0}}}
    assert "| noise over signal | `nncf-onnx` | 0.10 |" in margins({"nncf-onnx": vit, "onnxq": ours})


def test_without_ours_there_is_no_table(rows):
    del rows["onnxq"]
    assert margins(rows) == ""
