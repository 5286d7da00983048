"""Which exact pass leaves which family in which spelling alone, and why: ``docs/refusals.md``.

``python -m tests.families.refusals`` writes the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.contract import AnyPass, Contract, Pass
from onnxq.ir.walk import nodes
from onnxq.passes import registry
from onnxq.pipeline import apply_pass
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics
from tests.families.build import build
from tests.families.spec import LEVELS, Dims, Spec, is_possible

PAGE = Path(__file__).parents[2] / "docs" / "refusals.md"
AS_IT_IS = "plain"
VARIED = (
    *("norm", "activation", "linear", "attention", "shared", "head"),
    *("bias", "described", "gamma", "clutter", "dtype", "opset"),
)
"""Fields of a spec that are varied, one at a time."""
WORDS = {"True": "yes", "False": "no"}
INTRODUCTION = """# Refusals

Which exact pass leaves what alone, and why, found by trying every pass on models of six families: a post-LN
encoder (`post-encoder`), a pre-LN encoder (`pre-encoder`), a decoder with RMS norms, rotary positions,
grouped heads and gated feed-forwards (`decoder`), encoder-decoders with either placement of norms
(`post-crossed`, `pre-crossed`), and a vision transformer (`vision`). Of each family there is a plain model of
opset 23 with norms, activation and attention spelled out, and one model for each change of one of its parts.
Statistics are made up, uneven and off centre, so that passes have a reason to fire. `contrib` and `skip` are
ONNX Runtime's own operators.

A near match that is left alone has a reason; where nothing resembles what a pass looks for, it has none. A
refusal concerns one spot: the pass may well fire elsewhere in the same model. "plain" is the model without a
change, "always" that model and every change of it. Passes that are not listed refused nothing.

Written by `python -m tests.families.refusals`.
"""


@dataclass(frozen=True)
class Case:
    """One model: a family, and what is other than plain about it."""

    family: str
    change: str
    spec: Spec


@cache
def cases() -> tuple[Case, ...]:
    """The plain model of each family, and one for each change."""
    return tuple(case for family in LEVELS["family"] for case in _cases_of(str(family)))


def _cases_of(family: str) -> Iterator[Case]:
    plain = Spec(family=family, opset=23, dims=Dims(layers=1), head="states")
    yield Case(family, AS_IT_IS, plain)
    for name in VARIED:
        levels = (13,) if name == "opset" else dict.fromkeys(LEVELS[name])
        for level in levels:
            spec = replace(plain, **{name: level})
            if name == "shared" and level == "tied":
                spec = replace(spec, head="scores")
            if name == "shared" and level == "layers":
                spec = replace(spec, dims=Dims(layers=2))
            if getattr(plain, name) != level and is_possible(spec):
                yield Case(family, f"{name} {WORDS.get(str(level), level)}", spec)


def refused(case: Case) -> dict[str, set[str]]:
    """The reasons that each pass gives for a model, without names and numbers."""
    model = build(case.spec)
    statistics = uneven(model)
    found: dict[str, set[str]] = {}
    for a_pass in _exact():
        result = apply_pass(model, a_pass, statistics)
        reasons = [each.reason for each in result.rejects] + [result.skipped] * bool(result.skipped)
        if reasons:
            found[a_pass.name] = {_general(reason) for reason in reasons}
    return found


def uneven(model: ir.Model) -> Statistics:
    """Made-up extremes of every value with a known number of channels that any pass asks for."""
    random = np.random.default_rng(0)
    names = {
        str(value.name)
        for a_pass in _exact()
        if isinstance(a_pass, Pass)
        for values in a_pass.wanted(model).values()
        for value in values
    }
    sizes = channels_of(model)
    found = {}
    for name in sorted(names & sizes.keys()):
        reach = np.where(random.random(sizes[name]) < 0.15, 15.0, 1.0) * random.uniform(0.5, 1.5, sizes[name])
        middle = random.standard_normal(sizes[name])
        found[name] = TensorStatistics(1, channel=ChannelExtremes(middle - reach, middle + reach))
    return Statistics(found)


def channels_of(model: ir.Model) -> dict[str, int]:
    """Channels of outputs of norms and inputs of linears, by name."""
    from onnxq.ir.linear import Linear, find_linear
    from onnxq.ir.norm import Norm, find_norm

    found: dict[str, int] = {}
    for node in nodes(model):
        if isinstance(norm := find_norm(node), Norm):
            found[str(norm.output.name)] = norm.channels
        if isinstance(linear := find_linear(node), Linear):
            found[str(linear.activation.name)] = linear.channels
    return found


def written(found: Iterable[tuple[Case, Mapping[str, set[str]]]]) -> str:
    """The page."""
    table: dict[tuple[str, str], dict[str, list[str]]] = {}
    for case, reasons in found:
        for name, each in reasons.items():
            for reason in sorted(each):
                table.setdefault((name, reason), {}).setdefault(case.family, []).append(case.change)
    parts = [INTRODUCTION]
    for a_pass in _exact():
        rows = {reason: where for (name, reason), where in table.items() if name == a_pass.name}
        if rows:
            parts.append(f"\n## {a_pass.name}\n\n| reason | where |\n|---|---|\n")
            parts += [f"| {reason} | {_where(where)} |\n" for reason, where in sorted(rows.items())]
    return "".join(parts)


def is_told(page: str, case: Case, name: str, reason: str) -> bool:
    """Whether the page says that the pass refuses something of this model for this reason."""
    _, _, section = page.partition(f"\n## {name}\n")
    rows = [row for row in section.partition("\n## ")[0].splitlines() if row.startswith(f"| {reason} |")]
    families = dict(part.split(": ") for row in rows for part in row.split(" | ")[-1].strip(" |").split("; "))
    told = families.get(case.family, families.get("every family", "")).split(", ")
    if told[0].startswith("always"):
        return case.change not in (told[0].removeprefix("always but "), *told[1:])
    return case.change in told


def _where(where: Mapping[str, list[str]]) -> str:
    told = {family: _changes(family, changes) for family, changes in where.items()}
    if len(told) == len(LEVELS["family"]) and len(set(told.values())) == 1:
        return f"every family: {next(iter(told.values()))}"
    return "; ".join(f"{family}: {changes}" for family, changes in told.items())


def _changes(family: str, changes: list[str]) -> str:
    """The changes that bring the refusal; "always" if whatever is changed, it stays."""
    every = {case.change for case in cases() if case.family == family}
    if set(changes) == every:
        return "always"
    if AS_IT_IS in changes and len(every) - len(changes) < len(changes):
        return ", ".join(["always but", *sorted(every - set(changes))]).replace("but,", "but")
    return ", ".join(changes)


def _general(reason: str) -> str:
    """A reason without the names and figures of one model."""
    general = re.sub(r"'[^']*'", "`...`", reason).replace("|", "/").replace("; ", ", ").replace(": ", ", ")
    return re.sub(r"\d+\.\d+(e[-+]?\d+)?", "N", general)


def _exact() -> list[AnyPass]:
    return [kind() for kind in registry().values() if kind.contract is not Contract.LOSSY]


if __name__ == "__main__":
    PAGE.write_text(written([(case, refused(case)) for case in cases()]), encoding="utf-8")
