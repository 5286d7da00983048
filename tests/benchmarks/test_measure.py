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


def test_process_that_takes_too_long_is_stopped_with_its_children():
    child = "import time; time.sleep(60)"
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{child}'])"
    done = run_measured([sys.executable, "-c", command], limit=0.5)
    assert done.failure == "error: stopped after 0.5 s"
    assert done.code
    assert done.seconds < 30


def test_environment_of_the_process_can_be_given():
    command = [sys.executable, "-c", "import os; print(os.environ['COLOUR'])"]
    assert run_measured(command, variables={"COLOUR": "red"}).output == "red\n"
