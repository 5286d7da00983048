"""Costs of kernels: plausible, kept, and taken from the table where they cannot be had."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import get_args

import pytest

from onnxq.errors import BackendError
from onnxq.runtime import read_machine
from onnxq.targets import measured
from onnxq.targets.costs import Kernel, KernelCosts
from onnxq.targets.measured import costs_of, measure_costs


def never():
    raise AssertionError("measured again")


def test_what_is_measured_is_finite_and_more_work_costs_more():
    costs = measure_costs()
    assert all(0 < value < 1e9 for value in asdict(costs).values())
    for kernel in get_args(Kernel):
        assert costs.product(1024, 768, 768, kernel) > costs.product(1, 768, 768, kernel)
    assert costs.block4_macs != KernelCosts().block4_macs, "4 bits are measured, too"
    assert costs.token_call >= costs.call


def test_kept_and_read_back(tmp_path, monkeypatch):
    own = KernelCosts(float_macs=1000.0)
    monkeypatch.setattr(measured, "measure_costs", lambda: own)
    machine = read_machine()
    assert costs_of(machine, tmp_path) == own
    monkeypatch.setattr(measured, "measure_costs", never)
    assert costs_of(machine, tmp_path) == own
    with pytest.raises(AssertionError, match="measured again"):
        costs_of(replace(machine, cpu="another"), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1, "nothing half-written stays"
    monkeypatch.setattr(measured, "VERSION", measured.VERSION + 1)
    with pytest.raises(AssertionError, match="measured again"):
        costs_of(machine, tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"float_macs": 1.0}', "{bad", json.dumps({**asdict(KernelCosts()), "call": -1.0})],
)
def test_a_damaged_file_is_measured_again(text, tmp_path, monkeypatch):
    own = KernelCosts(call=7.0)
    monkeypatch.setattr(measured, "measure_costs", lambda: own)
    machine = read_machine()
    costs_of(machine, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert costs_of(machine, tmp_path) == own
    assert json.loads(path.read_text()) == asdict(own)


def test_the_table_stands_in_where_the_runtime_refuses(tmp_path, monkeypatch):
    def refuse():
        raise BackendError("no such kernel", slug="no-kernel")

    monkeypatch.setattr(measured, "measure_costs", refuse)
    assert costs_of(read_machine(), tmp_path) == KernelCosts()
    assert not list(tmp_path.iterdir()), "what was not measured is not kept"


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "measure_costs", lambda: KernelCosts(call=3.0))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert costs_of(read_machine(), blocked / "kernels").call == 3.0


def test_a_moment_in_which_integers_are_slower_is_not_kept(tmp_path, monkeypatch):
    busy = KernelCosts(integer_macs=20_000.0)
    monkeypatch.setattr(measured, "measure_costs", lambda: busy)
    assert costs_of(read_machine(), tmp_path) == KernelCosts()
    assert not list(tmp_path.iterdir())
