"""Why a form was chosen: in words shared by all layers for which they hold, and in the numbers of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxq.planning.front import Measured
from onnxq.planning.options import Count

SHARES = "its weight is an embedding's table too, and in blocks both read the same bytes"


def reason_of(chosen: Measured, measured: Sequence[Measured], shared: bool) -> str:
    """Why `chosen` and no other option of its group.

    Args:
        chosen: What was chosen.
        measured: All that was tried.
        shared: Whether an embedding can read the weight, too, in blocks.
    """
    if shared and chosen.option.form == "int8 blocks":
        return SHARES
    if chosen.option == _cheapest(measured).option:
        return "the fastest form, and no other takes away enough error for its time"
    if chosen.option.form == "float":
        return "8 bits lose too much of it"
    return "takes away enough error for its time"


def evidence(chosen: Measured, measured: Sequence[Measured], count: Count) -> str:
    """The numbers that it was weighed by: against the cheapest option, or against the next if it is that.

    Args:
        chosen: What was chosen.
        measured: All that was tried.
        count: What costs are.

    Returns:
        E.g. ``"error 4.1 times smaller than int8 static's for 1.3 us more"``; "" if it was all.
    """
    cheapest = _cheapest(measured)
    if chosen.option == cheapest.option:
        told = _declined(chosen, measured, count)
    elif not sum(chosen.errors):
        told = _in_float(chosen, measured, count)
    else:
        times = f"{sum(cheapest.errors) / sum(chosen.errors):.3g}"
        price = _price(chosen.cost - cheapest.cost, count)
        told = f"error {times} times smaller than {cheapest.option}'s {price}"
    together = len(chosen.errors)
    return f"{told}, {together} linears together" if told and together > 1 else told


def decibels(error: float) -> float:
    """Noise over signal as SQNR in dB; infinite for none."""
    return -10 * math.log10(error) if error > 0 else math.inf


def _declined(chosen: Measured, measured: Sequence[Measured], count: Count) -> str:
    """What the step that was not taken would have bought: the one that takes away the most for its cost."""
    better = [each for each in measured if each.error < chosen.error]
    if not better:
        return ""
    following = max(better, key=lambda each: (chosen.error - each.error) / max(each.cost - chosen.cost, 1e-9))
    more = _amount(following.cost - chosen.cost, count)
    if not sum(following.errors):
        return f"the next one ({following.option}) makes no error for {more} more"
    times = f"{sum(chosen.errors) / sum(following.errors):.3g}"
    return f"the next one ({following.option}) makes the error {times} times smaller for {more} more"


def _in_float(chosen: Measured, measured: Sequence[Measured], count: Count) -> str:
    rounded = [each for each in measured if sum(each.errors)]
    if not rounded:
        return ""
    best = min(rounded, key=lambda each: sum(each.errors))
    reached = decibels(sum(best.errors) / len(best.errors))
    more = _amount(chosen.cost - best.cost, count)
    return f"{more} more than {best.option}, which has {reached:.1f} dB"


def _price(cost: float, count: Count) -> str:
    return f"for {_amount(cost, count)} more" if cost > 0 else "at no cost"


def _amount(cost: float, count: Count) -> str:
    """Microseconds or bytes, with three digits and no exponent."""
    small, large = ("us", "ms") if count == "time" else ("B", "kB")
    return f"{cost:.3g} {small}" if abs(cost) < 999.5 else f"{cost / 1000:.3g} {large}"


def _cheapest(measured: Sequence[Measured]) -> Measured:
    return min(measured, key=lambda each: each.cost)
