"""What the decode benchmark makes of times, and that it runs a model with a cache."""

from __future__ import annotations

from benchmarks.decode import PREFILLS, Speed, compare, measure
from tests.ir.cached import FOLDER, feeds


def test_speedups_are_over_the_first_model():
    rows = compare(
        {
            "fp32": [Speed((400.0, 500.0), (30.0, 32.0)), Speed((420.0, 600.0), (31.0, 40.0))],
            "int8": [Speed((200.0, 210.0), (10.0, 16.0)), Speed((220.0, 230.0), (12.0, 14.0))],
        }
    )
    assert rows["fp32"]["prefill_speedup_least"] == rows["fp32"]["decode_speedup_median"] == 1.0
    assert rows["int8"]["prefill_speedup_least"] == 2.0
    assert rows["int8"]["decode_speedup_least"] == 3.0
    assert rows["int8"]["decode_speedup_median"] == 31.5 / 13.0


def test_the_past_is_fed_back():
    prompt = feeds(0, batch=1, new=5, past=0)
    speed = measure(FOLDER / "cached_torchscript.onnx", tokens=3, threads=1, prompt=prompt)
    assert len(speed.prefill_ms) == PREFILLS - 1 and len(speed.decode_ms) == 3
