"""What each command gives back, as data. Rendered by `onnxq.report.terminal`, `.page` and `.encode`.

Every class here carries a versioned ``schema`` name, written into its JSON. A field may be added under the
same version; a change of meaning or a removal raises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from onnxq.report.bench_rows import MemoryRow, NodeRow, OperatorRow, PlacementRow
from onnxq.report.measures import (
    DataSummary,
    Fidelity,
    Goal,
    JournalCount,
    Machine,
    ModelSummary,
    Rejection,
    Timing,
)
from onnxq.report.rows import (
    ChannelPicture,
    Check,
    DemoRow,
    Equality,
    FrontRow,
    LayerRow,
    OptionRow,
    OutlierRow,
    Part,
    PassRow,
    RefinementRow,
    Verdict,
)


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
        front: The plans to choose from, the cheapest first; empty where nothing was planned.
        refinements: What was tried on the whole planned model, in order; empty where nothing was.
        passes: One row a pass, in the order they ran.
        exact: Whether the exact passes together changed nothing but the graph; None if that was not checked.
        journal: Edits by pass and kind.
        goals: What was asked for and whether it was met.
        hints: What to do next, a sentence each.
        channels: The few layers with the largest channel ratio.
        recipe: Every option of this run as TOML; feeding it back gives the same bytes.
        seconds: Wall clock of the whole run.
        provider: Execution provider that latency was measured with.
        target: What the model was made for, by name; never "auto".
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
    front: tuple[FrontRow, ...] = ()
    passes: tuple[PassRow, ...] = ()
    journal: tuple[JournalCount, ...] = ()
    goals: tuple[Goal, ...] = ()
    hints: tuple[str, ...] = ()
    channels: tuple[ChannelPicture, ...] = ()
    recipe: str = ""
    seconds: float = 0.0
    exact: Equality | None = None
    refinements: tuple[RefinementRow, ...] = ()
    provider: str = "cpu"
    target: str = ""


@dataclass(frozen=True)
class ApplyReport:
    """What `apply` did: the passes alone, with the check of each and of the whole.

    Attributes:
        before: The model as it came.
        after: The model as it is now.
        passes: One row a pass.
        journal: What was done, counted.
        verdict: Of the check.
        fidelity: One row an output.
        seconds: That it took.
        exact: How equal the outputs are, if nothing lossy ran.
        clipping: In words, what clipping of ranges found; "" where none was asked for.
    """

    schema: ClassVar[str] = "onnxq/apply-1"

    before: ModelSummary
    after: ModelSummary
    passes: tuple[PassRow, ...] = ()
    journal: tuple[JournalCount, ...] = ()
    verdict: Verdict = "not checked"
    fidelity: tuple[Fidelity, ...] = ()
    seconds: float = 0.0
    exact: Equality | None = None
    clipping: str = ""


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
        host: Machine that was logged in to; "" for this one.
        copies: Whether the copies of inputs and outputs to and from an accelerator are counted.
        disabled_optimizers: The runtime's graph transformers that were left out.
        memory: A row a model and shape.
        operators: Rows a model and shape, slowest first; empty unless asked for.
        nodes: The slowest nodes likewise.
        placements: Which provider ran how many nodes; empty on CPUs, where there is one.
    """

    schema: ClassVar[str] = "onnxq/bench-1"

    machine: Machine
    timings: tuple[Timing, ...] = ()
    rounds: int = 0
    provider: str = "cpu"
    hints: tuple[str, ...] = ()
    host: str = ""
    copies: bool = True
    disabled_optimizers: tuple[str, ...] = ()
    memory: tuple[MemoryRow, ...] = ()
    operators: tuple[OperatorRow, ...] = ()
    nodes: tuple[NodeRow, ...] = ()
    placements: tuple[PlacementRow, ...] = ()


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
        kernels: Of a quantized model, the low-precision kernels that the runtime runs, and how often.
        traps: Its nodes that the runtime runs slowly or wrongly, why, and what to do instead.
    """

    schema: ClassVar[str] = "onnxq/inspect-1"

    model: ModelSummary
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    near_misses: tuple[Rejection, ...] = ()
    outliers: tuple[OutlierRow, ...] = ()
    data: DataSummary | None = None
    hints: tuple[str, ...] = ()
    kernels: Mapping[str, int] = field(default_factory=dict)
    traps: tuple[Rejection, ...] = ()


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
    values: int
    written: str


@dataclass(frozen=True)
class DemoResult:
    """The demonstration: three models, the data, and where the full report lies."""

    schema: ClassVar[str] = "onnxq/demo-1"

    machine: Machine
    rows: tuple[DemoRow, ...] = ()
    samples: int = 0
    seconds: float = 0.0
    report_path: str = ""


@dataclass(frozen=True)
class PassPage:
    """What a pass says of itself.

    Attributes:
        name: Its word on the command line.
        law: What it does, as "A => B".
        text: Its whole docstring.
        contract: What it promises.
        statistics: Kinds of calibration statistics that it needs.
        opset: Lowest opset of a model that it rewrites.
        options: Its fields.
    """

    schema: ClassVar[str] = "onnxq/pass-1"

    name: str
    law: str
    text: str
    contract: str
    statistics: tuple[str, ...] = ()
    opset: int = 1
    options: tuple[OptionRow, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """All passes, in the order a pipeline runs them."""

    schema: ClassVar[str] = "onnxq/passes-1"

    passes: tuple[PassPage, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Why a command gave no result: the exception's class, its stable slug, its words and its exit code."""

    schema: ClassVar[str] = "onnxq/error-1"

    kind: str
    slug: str
    message: str
    hint: str
    exit_code: int
