"""The small records that reports are made of: machines, models, data, fidelity, times, ranges.

Plain numbers, strings and tuples only, so that a report can be written, sent and read without numpy or ONNX.
A figure that was not measured is None. Names of units are part of the field name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Resolution = Literal["", "faster", "slower", "not resolved"]


@dataclass(frozen=True)
class Machine:
    """Where the figures were measured.

    Attributes:
        cpu: Model name as the processor gives it.
        features: Instruction sets that matter for low precision, e.g. ``("avx2", "avx512_vnni")``.
        cores: Cores that this process may use.
        threads: Threads that the measured sessions used.
        memory_bytes: Physical memory.
        system: Operating system and architecture.
        python: Version of Python.
        onnxruntime: Version of the runtime; empty if there is none.
        onnxq: Version of this package.
    """

    cpu: str
    features: tuple[str, ...]
    cores: int
    threads: int
    memory_bytes: int
    system: str
    python: str
    onnxruntime: str
    onnxq: str


@dataclass(frozen=True)
class ModelSummary:
    """What identifies a model file.

    Attributes:
        name: File name, or the graph's name for a model that came from memory.
        sha256: Fingerprint of graph and weights, in hex.
        size_bytes: Size on disk, external data included.
        opset: Version of the default operator set.
        ir_version: Version of the file format.
        producer: The exporter, as the model names it.
        nodes: Nodes in all graphs, subgraphs and functions.
    """

    name: str
    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    producer: str
    nodes: int


@dataclass(frozen=True)
class DataSummary:
    """Which data was used, and how it was split.

    Attributes:
        source: What the user named, e.g. ``"calib.npz"``.
        fingerprint: Hash of the content, in hex.
        calibration: Samples that statistics were gathered from.
        held_out: Samples that figures of fidelity come from; none of them was used to calibrate.
    """

    source: str
    fingerprint: str
    calibration: int
    held_out: int


@dataclass(frozen=True)
class Fidelity:
    """How close one output is to the reference, over all held-out samples.

    Attributes:
        output: Name of the output.
        cosine_mean: Mean over samples of the cosine with the reference.
        cosine_min: The lowest of them.
        sqnr_db: Signal to quantization noise in decibels; infinite for equal outputs.
        max_abs: Largest absolute difference.
        top1: Share of samples with the same highest entry, where the output is logits.
        kl: Mean Kullback-Leibler divergence in nats, where the output is logits.
    """

    output: str
    cosine_mean: float
    cosine_min: float
    sqnr_db: float
    max_abs: float
    top1: float | None = None
    kl: float | None = None


@dataclass(frozen=True)
class Timing:
    """How long one model takes for one shape of input.

    Attributes:
        model: Which model, e.g. ``"fp32"`` or a file name.
        shape: The shape, e.g. ``"input_ids=8x128"``.
        threads: Threads of the session.
        least_ms: The fastest run of all processes.
        median_ms: The median over all runs.
        spread_ms: Distance between the quartiles of all runs.
        ratio: Speed relative to the first model of the same run, 2.0 being twice as fast; None for that
            first model.
        ratio_low: Lower end of the interval that the median ratio of the rounds lies in.
        ratio_high: Its upper end.
        verdict: Whether the rounds agree that this model is ``"faster"`` or ``"slower"`` than the first, or
            ``"not resolved"``; "" where there is nothing to compare.
        medians_ms: The median run of each process, in the order they ran.
        runs: Timed runs in all processes.
    """

    model: str
    shape: str
    threads: int
    least_ms: float
    median_ms: float
    spread_ms: float
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    verdict: Resolution = ""
    medians_ms: tuple[float, ...] = ()
    runs: int = 0


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of a tensor."""

    low: float
    high: float


@dataclass(frozen=True)
class Rejection:
    """A spot that a pass left alone, and why."""

    reason: str
    node: str


@dataclass(frozen=True)
class Goal:
    """Something that was asked for, in words, and what came out; `way_out` is for one that was missed."""

    asked: str
    got: str
    met: bool
    way_out: str = ""


@dataclass(frozen=True)
class JournalCount:
    """How often one pass did one kind of edit, e.g. ``fold-gamma`` ``rewire`` 48 times."""

    owner: str
    action: str
    count: int
