"""Plans between the fastest and the most accurate one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxq.planning.front import Measured, balanced_point, pareto_front
from onnxq.planning.options import Form, Option
from onnxq.targets.costs import KernelCosts


def option(cost: float, *errors: float) -> Measured:
    return Measured(Option(), cost, errors)


def test_it_starts_with_the_fastest_and_ends_with_the_most_accurate() -> None:
    front = pareto_front({"a": [option(5, 0.1), option(1, 1.0)], "b": [option(2, 0.5, 0.5)]})
    assert [(point.cost, point.error) for point in front] == [(3, 2.0), (7, pytest.approx(1.1))]
    assert front[0].chosen == {"a": 1, "b": 0}
    assert (front[1].chosen, front[1].changed) == ({"a": 0, "b": 0}, "a")


def test_what_buys_most_comes_first() -> None:
    front = pareto_front(
        {
            "dear": [option(1, 1.0), option(11, 0.0)],
            "cheap": [option(1, 1.0), option(2, 0.0)],
        }
    )
    assert [point.changed for point in front] == ["", "cheap", "dear"]


def test_a_step_never_skips_what_is_worth_more_on_the_way() -> None:
    """Of three forms on a line that is bent the wrong way, the middle one is never chosen."""
    bent = pareto_front({"a": [option(1, 1.0), option(2, 0.95), option(3, 0.0)]})
    assert [point.chosen["a"] for point in bent] == [0, 2]
    straight = pareto_front({"a": [option(1, 1.0), option(2, 0.1), option(3, 0.0)]})
    assert [point.chosen["a"] for point in straight] == [0, 1, 2]


def test_no_plan_of_the_front_is_beaten_by_a_random_one() -> None:
    random = np.random.default_rng(0)
    groups = {
        str(group): [option(*pair) for pair in random.uniform(0.1, 1.0, size=(4, 2))] for group in range(4)
    }
    front = pareto_front(groups)
    for earlier, later in itertools.pairwise(front):
        assert later.cost > earlier.cost
        assert later.error < earlier.error
    costs, errors = ([getattr(point, name) for point in front] for name in ("cost", "error"))
    for choice in itertools.product(range(4), repeat=4):
        picked = [groups[str(group)][index] for group, index in enumerate(choice)]
        cost, error = sum(each.cost for each in picked), sum(each.error for each in picked)
        # Between two plans of the front the straight line is what mixing them would give.
        assert error >= np.interp(cost, costs, errors, left=np.inf) - 1e-9 or cost < costs[0]


def test_balance_stops_where_time_stops_paying() -> None:
    front = pareto_front(
        {
            "a": [option(100, 1.0), option(101, 0.5)],  # 1 % more time takes a fourth of the error
            "b": [option(100, 1.0), option(150, 0.9)],
        }
    )
    assert balanced_point(front, exchange=8.0) == 1
    assert balanced_point(front, exchange=0.0) == 2
    assert balanced_point(front, exchange=1e9) == 0


def test_nothing_is_paid_where_there_is_no_error() -> None:
    front = pareto_front({"a": [option(1, 0.0), option(2, 0.0)]})
    assert balanced_point(front, exchange=0.0) == 0


@pytest.mark.parametrize(
    ("slower", "faster"),
    [
        (Option("float"), Option("int8 blocks")),
        (Option("int8 blocks"), Option("int8 per-token")),
        (Option("int8 per-token"), Option(split=8)),
        (Option(split=8), Option()),
        (Option(scaled=True), Option()),
        (Option(split=8, scaled=True), Option(scaled=True)),
    ],
    ids=str,
)
def test_forms_of_a_wide_layer_cost_in_this_order(slower: Option, faster: Option) -> None:
    costs = KernelCosts()
    assert slower.cost(costs, 1024, 1536, [384]) > faster.cost(costs, 1024, 1536, [384])


@pytest.mark.parametrize("form", ["int8 static", "int8 per-token", "int8 blocks", "float"])
def test_what_is_done_to_an_activation_is_paid_once_for_all_that_read_it(form: Form) -> None:
    one, three = (Option(form).cost(KernelCosts(), 128, 384, [384] * count) for count in (1, 3))
    assert three <= 3 * one
