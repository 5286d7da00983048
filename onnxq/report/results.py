"""What each command gives back, as data. Rendered by `onnxq.report.terminal`, `.page` and `.encode`.

Every class here carries a versioned ``schema`` name, written into its JSON. A field may be added under the same
version; a change of meaning or a removal raises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from onnxq.report.measures import (
    DataSummary,
    Fidelity,
    Goal,
    JournalCount,
    Machine,
    ModelSummary,
    Range,
    Rejection,
    Timing,
)

Verdict = Literal["equal", "different", "cannot judge", "not checked"]
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class LayerRow:
    """What was decided for one layer that could have been quantized.

    Attributes:
        name: Name of the node.
        kind: ``"linear"``, ``"embedding"`` ...
        channels: Channels of the activation that the layer reads (K).
        columns: Channels that it writes (N).
        decision: ``"int8 static"``, ``"int8 per-token"``, ``"float"`` ...
        reason: Why, in words.
        sqnr_db: Its own output against the float output, its input being exact.
        range_before: Range of the activation in the original model.
        range_after: The same activation after scales have been migrated.
        channel_ratio_before: Largest channel magnitude over the median one; 1 is even, 100 is a hard outlier.
        channel_ratio_after: The same after migration.
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
class Report:
    """Everything that `optimize` knows at its end.

    Attributes:
        before: The model as it came.
        after: The model as it leaves.
        machine: Where it was measured.
        data: Which samples.
        fidelity: One row an output of the model.
        latency: Rows in pairs (fp32, ours), one pair a shape.
        kernels: How often each low-precision kernel landed in the graph that the runtime really runs.
        layers: One row a layer, in graph order.
        passes: One row a pass, in the order they ran.
        journal: Edits by pass and kind.
        goals: What was asked for and whether it was met.
        hints: What to do next, a sentence each.
        channels: The few layers with the largest channel ratio.
        recipe: Every option of this run as TOML; feeding it back gives the same bytes.
        seconds: Wall clock of the whole run.
    """

    schema: ClassVar[str] = "onnxq/report-1"

    before: ModelSummary
    after: ModelSummary
    machine: Machine
    data: DataSummary
    fidelity: tuple[Fidelity, ...] = ()
    latency: tuple[Timing, ...] = ()
    kernels: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[LayerRow, ...] = ()
    passes: tuple[PassRow, ...] = ()
    journal: tuple[JournalCount, ...] = ()
    goals: tuple[Goal, ...] = ()
    hints: tuple[str, ...] = ()
    channels: tuple[ChannelPicture, ...] = ()
    recipe: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class ApplyReport:
    """What `apply` did: the passes alone, with the check of each and of the whole."""

    schema: ClassVar[str] = "onnxq/apply-1"

    before: ModelSummary
    after: ModelSummary
    passes: tuple[PassRow, ...] = ()
    journal: tuple[JournalCount, ...] = ()
    verdict: Verdict = "not checked"
    fidelity: tuple[Fidelity, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class CompareResult:
    """Two models side by side on the same data.

    Attributes:
        reference: The first model.
        candidate: The second.
        data: Which samples; all of them count as held out.
        fidelity: One row an output.
        verdict: ``"equal"`` for the same bits everywhere, else ``"different"``, or ``"cannot judge"``.
        note: Why it cannot be judged.
    """

    schema: ClassVar[str] = "onnxq/compare-1"

    reference: ModelSummary
    candidate: ModelSummary
    data: DataSummary
    fidelity: tuple[Fidelity, ...] = ()
    verdict: Verdict = "not checked"
    note: str = ""


@dataclass(frozen=True)
class BenchResult:
    """Latency of several models, each in processes of its own, in alternated rounds.

    Attributes:
        machine: Where.
        timings: All models of a shape together, the first model first.
        rounds: Processes started per model and shape.
        provider: Execution provider.
        hints: What makes these figures doubtful, if anything.
    """

    schema: ClassVar[str] = "onnxq/bench-1"

    machine: Machine
    timings: tuple[Timing, ...] = ()
    rounds: int = 0
    provider: str = "cpu"
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Something that was recognised in a graph.

    Attributes:
        kind: ``"linear"``, ``"norm"``, ``"activation"``, ``"attention"``, ``"feed-forward"``, ``"embedding"`` ...
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
class Inspection:
    """What onnxq sees in a model.

    Attributes:
        model: Which model.
        counts: How many parts of each kind.
        parts: The parts, in graph order.
        near_misses: What looked like a part and is none, and why.
        outliers: One row a quantizable activation, worst first; empty without data.
        data: Which samples the outlier figures come from.
        hints: What to know before optimizing it.
    """

    schema: ClassVar[str] = "onnxq/inspect-1"

    model: ModelSummary
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    near_misses: tuple[Rejection, ...] = ()
    outliers: tuple[OutlierRow, ...] = ()
    data: DataSummary | None = None
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One thing that `doctor` looked at: what it found, and the way out where it is not well."""

    name: str
    status: Status
    finding: str
    way_out: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The state of this machine and this installation."""

    schema: ClassVar[str] = "onnxq/doctor-1"

    machine: Machine
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class CalibrationSummary:
    """What `calibrate` gathered and where it put it."""

    schema: ClassVar[str] = "onnxq/calibrate-1"

    model: str
    source: str
    samples: int
    values: int
    written: str


@dataclass(frozen=True)
class DemoRow:
    """One model of the demonstration.

    Attributes:
        model: ``"fp32"``, ``"plain INT8"``, ``"onnxq"``.
        accuracy: Share of test images that it reads correctly.
        cosine: Mean cosine of its logits with those of fp32; None for fp32.
        sqnr_db: Their signal to noise; None for fp32.
        median_ms: Latency of one batch.
        ratio: Speed relative to fp32.
        size_bytes: Size on disk.
    """

    model: str
    accuracy: float
    cosine: float | None
    sqnr_db: float | None
    median_ms: float
    ratio: float | None
    size_bytes: int


@dataclass(frozen=True)
class DemoResult:
    """The demonstration: three models, the data, and where the full report lies."""

    schema: ClassVar[str] = "onnxq/demo-1"

    machine: Machine
    rows: tuple[DemoRow, ...] = ()
    samples: int = 0
    seconds: float = 0.0
    report_path: str = ""
