"""Along the front of plans to one that meets every goal: slower if fidelity is missed, faster if speed is."""

from __future__ import annotations

import enum
from collections.abc import Callable

TRIES = 18
"""Most plans that are carried out: strides that double cross 300 in nine, eight more halve the last."""


class Standing(enum.Enum):
    """How a plan that was carried out stands with the goals."""

    FITS = "it meets all of them"
    TOO_FAR = "the output is too far off; a slower plan may be closer"
    TOO_COSTLY = "it is too slow or too large; a cheaper plan may fit"
    HOPELESS = "both, so that no other plan fits either"


def settle(start: int, last: int, attempt: Callable[[int], Standing]) -> int:
    """The first place on the front that meets the goals, or the last one tried.

    Strides double in one direction until the goals are met or missed on the other side; then what lies
    between is halved.

    Args:
        start: Where to begin.
        last: The last place of the front; 0 is the cheapest plan.
        attempt: Carries out the plan at a place, and judges it.
    """
    far, costly = -1, last + 1
    place, stride = start, 1
    for tries in range(1, TRIES + 1):
        standing = attempt(place)
        if standing in (Standing.FITS, Standing.HOPELESS):
            break
        if standing is Standing.TOO_FAR:
            far, ahead = place, min(place + stride, costly - 1)
        else:
            costly, ahead = place, max(place - stride, far + 1)
        if costly - far <= 1 or tries == TRIES:
            break
        bracketed = far >= 0 and costly <= last
        place, stride = (far + costly) // 2 if bracketed else ahead, 2 * stride
    return place
