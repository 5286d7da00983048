"""The rows of reports: a layer, a pass, a recognised part, an outlier, a check, a demonstrated model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxq.report.measures import Range, Rejection

Verdict = Literal["equal", "different", "cannot judge", "not checked"]
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Tried:
    """A way to compute a layer that was measured.

    Attributes:
        option: In words.
        sqnr_db: The layer's own output in that form against float; infinite for float itself.
        cost: Microseconds it is expected to take, with all layers that read the same activation; or bytes of
            their weights.
    """

    option: str
    sqnr_db: float
    cost: float


@dataclass(frozen=True)
class FrontRow:
    """A plan of the whole model that was passed on the way from the cheapest to the most accurate.

    Attributes:
        cost: Microseconds that the linears are expected to take, or bytes of their weights.
        error: Noise over signal of the linears' own outputs, added up; where it was measured what these do to
            the model's output, that of the output.
        step: What distinguishes it from the plan before; "" for the cheapest.
        chosen: Whether it is the plan that was carried out.
    """

    cost: float
    error: float
    step: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class LayerRow:
    """What was decided for one layer that could have been quantized.

    Attributes:
        name: Name of the node.
        kind: ``"linear"``, ``"embedding"`` ...
        channels: Channels of the activation that the layer reads (K).
        columns: Channels that it writes (N).
        decision: ``"int8 static"``, ``"int8 per-token"``, ``"float"`` ...
        reason: Why, in words that are the same for all layers of which it holds.
        sqnr_db: Its own output against the float output, its input being exact.
        range_before: Range of the activation in the original model.
        range_after: The same activation after scales have been migrated.
        channel_ratio_before: Largest channel magnitude over the median one; 1 is even, 100 is a hard outlier.
        channel_ratio_after: The same after migration.
        tried: Everything that was measured before the decision, the fastest first.
        effect_db: The model's output against the original's with nothing rounded but this layer, as decided,
            and those decided with it since they read the same activation; None where that was not measured.
        evidence: The numbers behind the reason, e.g. ``"error 4.1 times smaller than int8 static's for 1.3 us
            more"``; "" where nothing was weighed.
        input_effect_db: The same with nothing rounded but the activation that the layer reads, in static 8
            bits whatever was decided; None where that was not measured.
    """

    name: str
    kind: str
    channels: int
    columns: int
    decision: str
    reason: str
    sqnr_db: float | None = None
    range_before: Range | None = None
    range_after: Range | None = None
    channel_ratio_before: float | None = None
    channel_ratio_after: float | None = None
    tried: tuple[Tried, ...] = ()
    effect_db: float | None = None
    evidence: str = ""
    input_effect_db: float | None = None


@dataclass(frozen=True)
class RefinementRow:
    """Something that was tried on the whole planned model, and kept where held-out samples gained.

    Attributes:
        name: What was tried, in words.
        before_db: SQNR of the model's output on held-out samples without it, in dB; None if it was not tried.
        after_db: The same with it.
        kept: Whether it is in the result.
        reason: Why it was kept or not.
    """

    name: str
    before_db: float | None
    after_db: float | None
    kept: bool
    reason: str


@dataclass(frozen=True)
class ChannelPicture:
    """Magnitudes of a layer's input channels, for a picture.

    Attributes:
        layer: Name of the layer that reads them.
        before: Per channel, the largest absolute value in the original model.
        after: The same after migration; same length and order.
    """

    layer: str
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True)
class PassRow:
    """What one pass did, and what the check after it said.

    Attributes:
        name: The pass with its options, as the recipe spells it.
        contract: ``"bitwise"``, ``"reassociates"`` or ``"lossy"``.
        changes: Edits made.
        rejects: Near matches that were left alone.
        seconds: Time spent, the check included.
        verdict: Of the comparison before and after.
        note: In words, where the pass was rolled back or could not be judged.
    """

    name: str
    contract: str
    changes: int
    rejects: tuple[Rejection, ...] = ()
    seconds: float = 0.0
    verdict: Verdict = "not checked"
    note: str = ""


@dataclass(frozen=True)
class Equality:
    """Whether the exact passes together left the function as it was, on inputs that were made up to tell.

    Attributes:
        verdict: Of the comparison before and after.
        feeds: Inputs that both models ran on.
        reason: What it rests on, in words.
    """

    verdict: Verdict
    feeds: int
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """Something that was recognised in a graph.

    Attributes:
        kind: ``"linear"``, ``"norm"``, ``"activation"``, ``"attention"``, ``"feed-forward"`` ...
        name: Name of the node that gives its result.
        spelling: In which of its spellings, e.g. ``"MatMul + Add"`` or ``"layer, 9 nodes"``.
        size: In words, e.g. ``"384 x 1536"`` or ``"12 heads of 32"``.
    """

    kind: str
    name: str
    spelling: str = ""
    size: str = ""


@dataclass(frozen=True)
class OutlierRow:
    """How hard one activation is to quantize.

    Attributes:
        value: Name of the value.
        reader: Name of the layer that reads it.
        max_abs: Largest absolute value (maximum infinity norm).
        kurtosis: Fourth standardised moment; 3 for a normal distribution.
        channel_ratio: Largest channel magnitude over the median one.
    """

    value: str
    reader: str
    max_abs: float
    kurtosis: float | None
    channel_ratio: float


@dataclass(frozen=True)
class Check:
    """One thing that `doctor` looked at: what it found, and the way out where it is not well."""

    name: str
    status: Status
    finding: str
    way_out: str = ""


@dataclass(frozen=True)
class DemoRow:
    """One model of the demonstration.

    Attributes:
        model: ``"fp32"``, ``"plain INT8"``, ``"onnxq"``.
        accuracy: Share of test images that it reads correctly.
        cosine: Mean cosine of its logits with those of fp32; None for fp32.
        sqnr_db: Their signal to noise; None for fp32.
        median_ms: Latency of one batch.
        ratio: Speed relative to fp32, of the least times.
        size_bytes: Size on disk.
        least_ms: The fastest run of one batch.
    """

    model: str
    accuracy: float
    cosine: float | None
    sqnr_db: float | None
    median_ms: float
    ratio: float | None
    size_bytes: int
    least_ms: float | None = None


@dataclass(frozen=True)
class OptionRow:
    """An option of a pass: its name, its type in words, its default as text."""

    name: str
    type: str
    default: str
