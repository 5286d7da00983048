"""The demonstration shows what it is meant to show."""

from __future__ import annotations

from pathlib import Path

from onnxq import api


def test_plain_int8_hurts_and_onnxq_does_not(tmp_path: Path) -> None:
    report = tmp_path / "new" / "folder" / "report.html"
    found = api.demo(report=report)
    rows = {row.model: row for row in found.rows}
    assert list(rows) == ["fp32", "plain INT8", "onnxq"]
    assert rows["fp32"].accuracy > 0.97
    assert rows["plain INT8"].accuracy < rows["fp32"].accuracy - 0.03
    assert abs(rows["onnxq"].accuracy - rows["fp32"].accuracy) < 0.01
    assert (rows["fp32"].cosine, rows["fp32"].ratio) == (None, None)
    assert rows["onnxq"].cosine > 0.999 > rows["plain INT8"].cosine
    assert rows["onnxq"].sqnr_db > rows["plain INT8"].sqnr_db + 10
    assert rows["onnxq"].size_bytes < 0.5 * rows["fp32"].size_bytes
    assert found.samples == 540
    assert found.report_path == str(report)
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
