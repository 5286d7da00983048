"""What a product costs is a line in its rows, and which form is cheapest depends on where on it one is."""

from __future__ import annotations

from typing import get_args

import pytest

from onnxq.planning.options import Option
from onnxq.targets import TARGETS
from onnxq.targets.costs import COMPILED, ROWS, Kernel, KernelCosts

COSTS = KernelCosts(float_macs=1000.0, float_row_macs=10.0, call=2.0)


def test_the_line_goes_through_both_rates() -> None:
    assert COSTS.product(1, 20, 30, "float") == pytest.approx(2 + 20 * 30 / 10)
    assert COSTS.product(ROWS, 20, 30, "float") == pytest.approx(2 + ROWS * 20 * 30 / 1000)
    slope = COSTS.product(2, 20, 30, "float") - COSTS.product(1, 20, 30, "float")
    assert COSTS.product(300, 20, 30, "float") == pytest.approx(
        COSTS.product(ROWS, 20, 30, "float") + (300 - ROWS) * slope
    )


@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_more_rows_never_cost_less(kernel: Kernel) -> None:
    odd = KernelCosts(**{f"{name}_row_macs": 1.0 for name in ("float", "integer", "block", "block4")})
    for costs in (KernelCosts(), odd):
        rows = [costs.product(tokens, 64, 64, kernel) for tokens in (0, 1, 2, 128, 4096)]
        assert rows == sorted(rows)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_reads_fewer_bytes_faster(name: str) -> None:
    """Of one row, whatever the target: 4 bits before 8 before float; of many rows integers are fastest."""
    costs = TARGETS[name].costs
    one = {
        form: Option(form).cost(costs, 1, 1024, [1024]) for form in ("int4 blocks", "int8 blocks", "float")
    }  # type: ignore[arg-type]
    assert one["int4 blocks"] < one["int8 blocks"] < one["float"]
    many = {form: Option(form).cost(costs, 512, 1024, [1024]) for form in ("int8 static", *one)}  # type: ignore[arg-type]
    assert min(many, key=lambda form: many[form]) == "int8 static"


def test_scales_by_token_are_found_once_and_multiplied_to_each_output() -> None:
    costs = KernelCosts()
    one, three = (costs.scales_by_token(128, 384, [384] * count) for count in (1, 3))
    assert three - one == pytest.approx(2 * 128 * 384 * 8 / costs.traffic)
    assert costs.scales_by_token(0, 384, [384]) == costs.token_call
    assert COMPILED.token_call == 0
