"""What an exact pass owes, asked of one pass and one model: every complaint in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.contract import AnyPass, Contract
from onnxq.ir.walk import constant_of
from onnxq.pipeline import PassResult, apply_pass, broken_promise, signature_of
from onnxq.verify import OracleSettings, Verdict, judge
from tests.property.subjects import Arrays, Subject

BOUND = {"float32": 1e-5, "float16": 5e-3}
"""How far an output may be off, as part of its largest element."""
ORACLE = OracleSettings(isolated=False)


@dataclass(frozen=True)
class Examination:
    """One pass on one model.

    Attributes:
        result: What the pass did.
        complaints: What is wrong with it; empty if nothing is.
    """

    result: PassResult
    complaints: tuple[str, ...]


def examine(subject: Subject, a_pass: AnyPass) -> Examination:
    """Apply the pass to the model and look at everything that it promises."""
    before = subject.model
    result = apply_pass(before, a_pass, subject.statistics)
    if not result.changes:
        return Examination(result, ())
    return Examination(result, tuple(_complaints(subject, a_pass, result)))


def _complaints(subject: Subject, a_pass: AnyPass, result: PassResult) -> Iterator[str]:
    before, after = subject.model, result.model
    if not result.settled:
        yield "it does not come to an end"
    if broken := broken_promise(before, after, a_pass):
        yield broken
    yield from interface_complaints(before, after, raising=a_pass.raises_opset)
    yield from constant_complaints(before, result)
    judgement = judge(before, after, a_pass.contract, feeds=subject.feeds, settings=ORACLE, host=subject.host)
    if judgement.verdict is not Verdict.EQUAL:
        yield f"the oracle says {judgement.verdict.value}: {judgement.reason}"
        if "does not run" in judgement.reason:
            return
    yield from number_complaints(
        subject, subject.computed(after), bitwise=a_pass.contract is Contract.BITWISE
    )
    again = apply_pass(after, a_pass, subject.statistics)
    if again.changes:
        yield f"a second run changes {len(again.changes)} things, {again.changes[0]} first"


def interface_complaints(before: ir.Model, after: ir.Model, *, raising: bool) -> Iterator[str]:
    """Inputs and outputs stay as they are in every respect, and so does the opset."""
    old, new = signature_of(before), signature_of(after)
    if old.inputs != new.inputs or old.outputs != new.outputs:
        yield f"the interface changed: {old.inputs} {old.outputs} to {new.inputs} {new.outputs}"
    if not raising and old.opsets[""] != new.opsets[""]:
        yield f"the opset changed from {old.opsets['']} to {new.opsets['']}"


def number_complaints(subject: Subject, found: list[Arrays], *, bitwise: bool = False) -> Iterator[str]:
    """Every output is within the bound of its element type, or as near as the model is to itself."""
    for index, (feed, old, new) in enumerate(zip(subject.feeds, subject.outputs, found, strict=True)):
        for name, array in old.items():
            if array.shape != new[name].shape:
                yield f"{name!r} on {feed.label}: {new[name].shape} instead of {array.shape}"
                continue
            if bitwise and subject.spec.dtype == "float32" and array.tobytes() != new[name].tobytes():
                yield f"{name!r} on {feed.label}: other bits"
            wide = array.astype(np.float64)
            allowed = BOUND[subject.spec.dtype] * float(np.abs(wide).max())
            off = float(np.abs(wide - new[name]).max())
            if not off <= allowed:  # NaN is no number within bounds
                allowed = max(allowed, 2 * subject.noise[index][name])
            if not off <= allowed:
                yield f"{name!r} on {feed.label}: off by {off:.3g}, where {allowed:.3g} is allowed"


def constant_complaints(before: ir.Model, result: PassResult) -> Iterator[str]:
    """Whoever is not in the journal reads the same constants as before, and no constant was written over."""
    touched = {change.node for change in result.changes}
    old_nodes = {node.name: node for node in before.graph}
    for node in result.model.graph:
        old = old_nodes.get(node.name)
        if old is None or node.name in touched:
            continue
        for index, (was, now) in enumerate(zip(old.inputs, node.inputs, strict=False)):
            one, other = constant_of(was), constant_of(now)
            if one is not None and not _same(one, other):
                yield f"input {index} of {node.name!r}, which was not rewritten, is another constant now"
    for name, value in before.graph.initializers.items():
        kept = result.model.graph.initializers.get(name)
        if kept is not None and not _same(value.const_value.numpy(), kept.const_value.numpy()):
            yield f"initializer {name!r} has other numbers"


def _same(one: np.ndarray, other: np.ndarray | None) -> bool:
    return other is not None and one.dtype == other.dtype and one.tobytes() == other.tobytes()
