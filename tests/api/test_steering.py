"""Walking along the front: the first plan that fits is found, and none is tried twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onnxq.api.steering import TRIES, Standing, settle


def walk(start: int, last: int, close_from: int, fast_until: int) -> tuple[int, list[int]]:
    """Where the walk ends, and what it visits: plans from `close_from` on are close, to `fast_until` fast."""
    seen: list[int] = []

    def attempt(place: int) -> Standing:
        seen.append(place)
        far, slow = place < close_from, place > fast_until
        if far and slow:
            return Standing.HOPELESS
        return Standing.TOO_FAR if far else Standing.TOO_COSTLY if slow else Standing.FITS

    return settle(start, last, attempt), seen


@given(st.data())
def test_what_fits_is_found(data: st.DataObject) -> None:
    last = data.draw(st.integers(0, 300))
    start, low = data.draw(st.integers(0, last)), data.draw(st.integers(0, last))
    high = data.draw(st.integers(low, last))
    place, seen = walk(start, last, low, high)
    assert seen[-1] == place
    assert len(set(seen)) == len(seen) <= TRIES
    assert all(0 <= each <= last for each in seen)
    assert low <= place <= high


@given(st.integers(0, 300), st.data())
def test_goals_that_exclude_each_other_end_soon(last: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, last))
    fast_until = data.draw(st.integers(-1, last))
    place, seen = walk(start, last, fast_until + 1 + data.draw(st.integers(0, 3)), fast_until)
    assert len(set(seen)) == len(seen) <= TRIES
    assert 0 <= place <= last


def test_the_first_plan_is_kept_if_it_fits() -> None:
    assert walk(7, 20, 0, 20) == (7, [7])


def test_a_step_at_a_time_at_first_then_further() -> None:
    assert walk(0, 100, 60, 100)[1] == [0, 1, 3, 7, 15, 31, 63]
    assert walk(100, 100, 0, 90)[1] == [100, 99, 97, 93, 85]


def test_what_lies_between_is_halved() -> None:
    assert walk(10, 100, 14, 14)[1] == [10, 11, 13, 17, 15, 14]


def test_the_end_of_the_front_is_the_last_try() -> None:
    assert walk(3, 5, 99, 99) == (5, [3, 4, 5])
    assert walk(2, 5, 0, -1) == (0, [2, 1, 0])
