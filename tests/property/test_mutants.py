"""The proofs have teeth: every pass is seen at work, and passes that err are caught."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import onnx_ir as ir
import pytest

from onnxq.contract import AnyPass, Pass
from onnxq.errors import OnnxqError
from onnxq.passes import registry
from onnxq.passes.clean import cleaning
from onnxq.pipeline import apply_pass
from tests.families.sampling import pairwise
from tests.families.spec import Dims, Spec
from tests.ir import cached
from tests.property.examination import examine
from tests.property.mutants import SLIPS, Mutant, Slip
from tests.property.subjects import EAGER, EXACT, Exported, Subject

ENOUGH = 3
"""Models of the sample on which each pass must find something to do."""


def reads_codes(a_pass: AnyPass) -> bool:
    """Whether the pass is for what rounding leaves behind, which exported models have none of."""
    return all(
        "QuantizeLinear" in each.text or "MatMulInteger" in each.text for each in a_pass.examples().fires
    )


ELSEWHERE = {"inline-functions"}
"""Passes for what the families never have, functions; random graphs have it, and show them at work."""
WORKING = [
    *[
        each
        for each in EXACT
        if each.name not in {*ELSEWHERE, *(eager.name for eager in EAGER)} and not reads_codes(each)
    ],
    *EAGER,
]
"""Each pass with the options that make it fire."""
SURE = [
    Spec("decoder", opset=23, norm=norm, activation=activation, clutter="exporter", dims=Dims(layers=1))
    for norm in ("script", "recomputed")
    for activation in ("erf", "silu")
]
"""What the sample may lack: RMS norms spelled out although there is an operator for them."""
FIRST = {
    name: tuple(registry()[first](**options) for first, options in before)
    for name, before in {
        "compute-picked": [("split-channels", {"channels": 3, "sites": "hidden"})],
        "pick-by-slice": [("split-channels", {"channels": 3, "sites": "hidden"})],
        "gather-dequantized": [("quantize-embeddings", {"least": 1})],
        "sub-before-norm": [("sum-before-norm", {})],
        "fuse-attention": [("raise-opset", {"to": 23})],
    }.items()
}
"""What leaves behind what some passes look for, by their names."""
FAMILIES = [spec for spec in (*SURE, *pairwise()) if spec.dtype == "float32"]
HARMLESS = ("drop-identity", "drop-dropout", "drop-casts", "drop-unused", "merge-reshapes")
"""Passes that may write nothing that could be wrong: they only take nodes out."""
WITHOUT_EFFECT = {"disassemble-channels": {"a reader is left out"}}
"""Mistakes that compute the same: the offsets of a channel's copies add up to nothing."""
TRIES = {"gather-dequantized": 10, "respell-rms-norm": 6}
"""Of how many models one must show a mistake, if not `ENOUGH`: the largest scale may be that of a word that
is not fed; and a scale of ones, as untrained decoders have it, is only missed in the models after them."""
FOR_CACHES = ("stack-heads", "fuse-rotary", "respell-rms-norm")
"""Passes made for decoders with a cache."""
each_pass = pytest.mark.parametrize("a_pass", WORKING, ids=lambda each: each.name)


def subjects(a_pass: AnyPass) -> Iterator[Subject]:
    """The sample in float32, made ready for the pass; before it decoders with a cache if it is for these."""
    if a_pass.name in FOR_CACHES:
        for weights in (1.0, 0.02):  # an epsilon counts where what is normalised is small
            for spelling in cached.SPELLINGS:
                yield Exported(FAMILIES[0], (a_pass,), tuple(cleaning()), spelling, weights)
    for spec in FAMILIES:
        yield Subject(spec, (a_pass,), FIRST.get(a_pass.name, ()))


def fired_on(a_pass: AnyPass) -> Iterator[Subject]:
    """Those on which the pass finds something to do."""
    for subject in subjects(a_pass):
        if apply_pass(subject.model, a_pass, subject.statistics).modified:
            yield subject


@each_pass
def test_every_pass_is_seen_at_work(a_pass: AnyPass) -> None:
    assert sum(1 for _, _ in zip(fired_on(a_pass), range(ENOUGH), strict=False)) == ENOUGH


@pytest.mark.parametrize(
    "a_pass", [each for each in WORKING if isinstance(each, Pass)], ids=lambda each: each.name
)
def test_mistakes_are_caught(a_pass: Pass) -> None:
    """One call of the editor done wrong, early or late: seen, or of no effect at all.

    A mistake may be too small to matter in one model, such as an offset of activations that are tiny there;
    then it has to be seen in another one.
    """
    kinds = {slip.name for slip in SLIPS}
    tried = 0
    for subject in itertools.islice(fired_on(a_pass), TRIES.get(a_pass.name, ENOUGH)):
        found = {place: seen for place, seen in mistakes(subject, a_pass) if place[0] in kinds}
        tried += len(found)
        kinds = {name for (name, _), caught in found.items() if not caught}
        if not kinds:
            break
    assert not kinds - WITHOUT_EFFECT.get(a_pass.name, set())
    assert tried or a_pass.name in HARMLESS


def mistakes(subject: Subject, a_pass: Pass) -> Iterator[tuple[tuple[str, int], bool]]:
    """Every mistake that changes what the pass makes of the model: what, when, and whether it was caught."""
    honest = Mutant(a_pass)
    right = digest(apply_pass(subject.model, honest, subject.statistics).model)
    for slip, number in slips_of(honest):
        try:
            seen = examine(subject, Mutant(a_pass, slip, number))
        except OnnxqError:
            yield (slip.name, number), True
            continue
        if digest(seen.result.model) != right:
            yield (slip.name, number), bool(seen.complaints)


def slips_of(honest: Mutant) -> Iterator[tuple[Slip, int]]:
    """Which mistakes the pass had a chance to make, and when: the first time and the last."""
    for slip in SLIPS:
        chances = honest.chances.get(slip.name, 0)
        for number in sorted({0, chances - 1}):
            if 0 <= number < chances:
                yield slip, number


def digest(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)
