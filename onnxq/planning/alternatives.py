"""Which ways to compute the linears of a group are worth a trial."""

from __future__ import annotations

from collections.abc import Iterator

from onnxq.ir.mixing import BLOCK as MIXED
from onnxq.planning.groups import Group
from onnxq.planning.options import Option
from onnxq.planning.trial import NOTICEABLE, Trial


def alternatives(trial: Trial) -> Iterator[Option]:
    """What is worth a trial for one group."""
    for form in trial.settings.forms:
        if form == "float":
            yield Option(form)
        elif form == "int8 per-token":
            yield from _per_token_options(trial)
        elif trial.shares_table:  # evened out, the weight would no longer be the embedding's
            yield from (Option(form),) if form == "int8 blocks" else ()
        elif form == "int8 static":
            yield from _static_options(trial)
        else:
            yield from (Option(form, scaled=scaled) for scaled in _evened(trial.group))


def _evened(group: Group) -> tuple[bool, ...]:
    """With and without evening out, where that takes no node."""
    return (False, True) if group.place is not None else (False,)


def _per_token_options(trial: Trial) -> Iterator[Option]:
    """Evened out where that takes no node, mixed where channels fill blocks."""
    for scaled in _evened(trial.group):
        for rotated in (False, True) if trial.group.channels % MIXED == 0 else (False,):
            yield Option("int8 per-token", scaled=scaled, rotated=rotated)


def _static_options(trial: Trial) -> Iterator[Option]:
    settings = trial.settings
    scales = settings.insert_nodes and not trial.group.from_norm and trial.unevenness() > NOTICEABLE
    yield Option()
    if scales:
        yield Option(scaled=True)
    for count in trial.counts() if settings.split else ():
        yield Option(split=count)
        if scales:
            yield Option(split=count, scaled=True)
    if settings.split and trial.group.copying is not None:
        added = int(trial.copies.sum()) - trial.group.channels
        yield from (Option(copied=added),) if added else ()
