"""A measured process tells its own time and memory, and why it failed."""

from __future__ import annotations

import sys

from benchmarks.measure import run_measured


def test_memory_is_that_of_the_process_and_not_of_an_earlier_one():
    large = run_measured([sys.executable, "-c", "print(len(bytes(bytearray(200_000_000))))"])
    small = run_measured([sys.executable, "-c", "print(1)"])
    assert large.output == "200000000\n"
    assert large.peak_mb > 200 > small.peak_mb > 1


def test_failure_is_told_by_its_last_line():
    done = run_measured([sys.executable, "-c", "raise ValueError('no such thing')"])
    assert done.code == 1
    assert done.failure == "ValueError: no such thing"


def test_silent_failure_is_told_by_its_status():
    assert run_measured([sys.executable, "-c", "raise SystemExit(3)"]).failure == "exit status 3"
