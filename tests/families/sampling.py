"""A few specs in which every two levels of any two fields meet."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np

from tests.families.spec import LEVELS, Dims, Spec, is_possible

POOL = 3000
"""Random specs to choose from."""


@cache
def pairwise(seed: int = 0, *, least: int = 0) -> tuple[Spec, ...]:
    """Specs that cover every pair of levels met in a large pool, and random ones up to `least` of them.

    Greedy: always the one with most pairs that were not seen yet. The same ones every time.
    """
    random = np.random.default_rng(seed)
    drawn = dict.fromkeys(_drawn(random) for _ in range(POOL))
    pool = {spec: _pairs(spec) for spec in drawn if is_possible(spec)}
    missing = 0
    for pairs in pool.values():
        missing |= pairs
    chosen: list[Spec] = []
    while missing:
        best = max(pool, key=lambda spec: (pool[spec] & missing).bit_count())
        missing &= ~pool.pop(best)
        chosen.append(best)
    chosen += itertools.islice(pool, max(0, least - len(chosen)))
    return tuple(_sized(spec, number) for number, spec in enumerate(chosen))


def _sized(spec: Spec, seed: int) -> Spec:
    """One layer, since most cost by the node; two where layers share."""
    return replace(spec, seed=seed, dims=Dims(layers=2 if spec.shared == "layers" else 1))


def _drawn(random: np.random.Generator) -> Spec:
    """A random spec; what cannot go together mostly put right."""
    found = {name: levels[random.integers(len(levels))] for name, levels in LEVELS.items()}
    if found["norm"] == "simplified":
        found["family"] = "decoder"
    elif found["norm"] == "tensorflow" and found["family"] == "decoder":
        found["family"] = "post-encoder"
    if found["family"] == "vision":
        found["mask"] = "additive"
    if found["shared"] == "tied":
        found["head"] = "scores"
    oldest = {"gelu": 20}.get(str(found["activation"]), 13)
    if found["norm"] == "operator":
        oldest = max(oldest, 23 if found["family"] == "decoder" else 17)
    if found["attention"] == "operator":
        oldest = 23
    if int(str(found["opset"])) < oldest:
        found["opset"] = int(random.integers(oldest, 24))
    return Spec(**found)  # type: ignore[arg-type]


def _pairs(spec: Spec) -> int:
    """The pairs of levels that meet in `spec`, each a bit."""
    bits, pairs = _BITS, 0
    for pair in itertools.combinations([(name, getattr(spec, name)) for name in LEVELS], 2):
        pairs |= bits[pair]
    return pairs


_BITS = {
    ((one, first), (other, second)): 1 << number
    for number, (one, first, other, second) in enumerate(
        (one, first, other, second)
        for (one, ones), (other, others) in itertools.combinations(LEVELS.items(), 2)
        for first, second in itertools.product(dict.fromkeys(ones), dict.fromkeys(others))
    )
}
