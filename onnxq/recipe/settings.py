"""What a user can choose, as frozen dataclasses: the same words in Python, recipe and command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from onnxq.errors import UsageProblem

if TYPE_CHECKING:
    from onnxq.calibration import DataOptions

Effort = Literal["fast", "balanced", "best"]
Format = Literal["kernel", "qdq"]
Weights = Literal["int8", "int4"]
Ranges = Literal["minmax", "average", "percentile", "mse", "token", "level"]
Verify = Literal["end", "each", "never"]
Cases = Mapping[str, tuple[int, ...]] | tuple[Mapping[str, tuple[int, ...]], ...]
"""Shapes by name, or several sets of them."""


@dataclass(frozen=True)
class DataSettings:
    """How calibration data is read.

    Attributes:
        samples: At most so many samples, or so many random ones; None for all, or 32 random ones.
        batch_size: Samples in one run of the model.
        tokenizer: A Hugging Face `tokenizer.json`, for text.
        max_length: Tokens after which a text is cut; size of unknown sequence axes of random data.
        image_size: Height and width of images in pixels; None where the model's input says it.
        mean: Per colour channel, subtracted from pixels scaled to 0..1; one number serves all channels.
        std: Per colour channel, divides what is left.
    """

    samples: int | None = None
    batch_size: int = 8
    tokenizer: str | None = None
    max_length: int = 128
    image_size: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size", "max_length", "image_size"):
            _at_least_one(name, getattr(self, name))
        if len(self.mean) != len(self.std):
            raise _problem("mean and std", f"{self.mean} and {self.std}", "of one length")
        if not all(value > 0 for value in self.std):
            raise _problem("std", self.std, "numbers above 0")

    def options(self, seed: int = 0) -> DataOptions:
        """The same, as `onnxq.calibration.open_data` takes it."""
        from onnxq.calibration import DataOptions

        made = DataOptions(
            batch_size=self.batch_size,
            limit=self.samples,
            tokenizer=self.tokenizer,
            max_length=self.max_length,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            seed=seed,
        )
        return made if self.samples is None else replace(made, samples=self.samples)


@dataclass(frozen=True)
class OptimizeSettings:
    """Everything that decides what `optimize` gives back, besides the model and the data.

    Attributes:
        target: Machine to run on; ``"auto"`` for this one.
        effort: How much time may be spent on fidelity.
        format: ``"kernel"`` for the nodes that ONNX Runtime executes fastest, ``"qdq"`` for standard ONNX.
        weights: ``"int8"``, or ``"int4"`` for the smallest file: blocks of 64 weights that share a scale, the
            worst layers in 8 bits, activations in 8 bits by token and block.
        ranges: How activation ranges are chosen; None lets the effort decide.
        min_fidelity: Lowest acceptable mean cosine with the original, over all outputs.
        max_drop: Largest acceptable loss of what `eval` measures, as a fraction: 0.01 is one in a hundred.
        eval: ``"module:function"`` that takes a runnable model and returns a score, higher being better.
        min_speedup: Lowest acceptable speed relative to the original; 1.5 is half as fast again.
        threads: Threads of the runtime; None for all cores.
        max_size: Largest acceptable size of the weights in bytes.
        shapes: Shape to plan for and to time each input with by name, and size (as a shape of one number) of
            each dimension by its name; several such mappings are timed one after the other; none for shapes
            out of the data, and a plan for 128 rows.
        costs: What kernels cost, by the fields of `onnxq.targets.costs.KernelCosts`; none to measure it on
            this machine, once. The recipe of a report says what it was.
        passes: Passes to run instead of the chosen ones, as words; None lets target and effort decide.
        keep_float: Names of nodes that stay as they are; ``*`` stands for any text.
        verify: When the rewritten model is compared with the original: at the end, after each pass, never.
        seed: Of everything random.
        data: How calibration data is read.
    """

    target: str = "auto"
    effort: Effort = "balanced"
    format: Format = "kernel"
    weights: Weights = "int8"
    ranges: Ranges | None = None
    min_fidelity: float | None = None
    max_drop: float | None = None
    eval: str | None = None
    min_speedup: float | None = None
    threads: int | None = None
    max_size: int | None = None
    shapes: Cases = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    passes: tuple[str, ...] | None = None
    keep_float: tuple[str, ...] = ()
    verify: Verify = "end"
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        if self.min_fidelity is not None and not -1 <= self.min_fidelity <= 1:
            raise _problem("min_fidelity", self.min_fidelity, "a cosine, at most 1, e.g. 0.999")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise _problem("max_drop", self.max_drop, "a fraction, e.g. 0.01 or 1%")
        if (self.max_drop is None) != (self.eval is None):
            raise UsageProblem(
                "max_drop and eval come together: what may drop, and who measures it",
                hint="--max-drop 1% --eval my_module:accuracy",
                slug="eval-and-drop",
            )
        if self.weights == "int4" and "qdq" in (self.format, self.target):
            raise UsageProblem(
                "plain Q/DQ has no products with 4-bit weights in blocks",
                hint="--format kernel, and a target with kernels; or --weights int8",
                slug="int4-as-qdq",
            )
        if self.min_speedup is not None and not self.min_speedup > 0:
            raise _problem("min_speedup", self.min_speedup, "a ratio above 0, e.g. 1.5")
        _at_least_one("threads", self.threads)
        _at_least_one("max_size", self.max_size)
        for name, rate in self.costs.items():
            if not (0 < rate < float("inf") or (rate == 0.0 and name in ("call", "token_call"))):
                raise _problem(f"costs.{name}", rate, "a rate above 0")
        _check_shapes(self.cases)

    @property
    def cases(self) -> tuple[Mapping[str, tuple[int, ...]], ...]:
        """What is timed one after the other."""
        return cases_of(self.shapes)


@dataclass(frozen=True)
class BenchSettings:
    """How models are timed.

    Attributes:
        threads: Threads of the runtime; None for all cores.
        shapes: Shape of each input by name, and size (as a shape of one number) of each dimension by its
            name; several such mappings are timed one after the other. What is not named follows from what
            is, or takes a usual size.
        rounds: Processes started per model and case, in turns.
        seconds: Time spent in each process, after a warm-up of at least a third of it.
        provider: Execution provider.
        seed: Of the random inputs.
        provider_options: Options of the provider.
        warmup: Longest warm-up in seconds, if runs keep getting faster; None for as long as is measured.
        affinity: Processors to keep to; none for any, None for as many cores as threads.
        ops: Whether the time of each operator is measured too.
        disabled_optimizers: The runtime's graph transformers to leave out, e.g. ``"SkipLayerNormFusion"``.
        timeout: Seconds that one process may take.
        host: Machine to time on, ``user@device[:port]``; None for this one.
        host_python: The Python there.
        ssh: The local ssh, with options of its own if need be, as words of a shell.
    """

    threads: int | None = None
    shapes: Cases = field(default_factory=dict)
    rounds: int = 5
    seconds: float = 1.0
    provider: str = "cpu"
    seed: int = 0
    provider_options: Mapping[str, str] = field(default_factory=dict)
    warmup: float | None = None
    affinity: tuple[int, ...] | None = None
    ops: bool = False
    disabled_optimizers: tuple[str, ...] = ()
    timeout: float = 600.0
    host: str | None = None
    host_python: str = "python3"
    ssh: str = "ssh"

    def __post_init__(self) -> None:
        _at_least_one("threads", self.threads)
        _at_least_one("rounds", self.rounds)
        for name in ("seconds", "timeout"):
            if not getattr(self, name) > 0:
                raise _problem(name, getattr(self, name), "a time above 0")
        if self.warmup is not None and not self.warmup >= 0:
            raise _problem("warmup", self.warmup, "a time, 0 or more")
        if any(number < 0 for number in self.affinity or ()):
            raise _problem("affinity", self.affinity, "numbers of processors, 0 or more")
        _check_shapes(self.cases)

    @property
    def cases(self) -> tuple[Mapping[str, tuple[int, ...]], ...]:
        """What is timed one after the other."""
        return cases_of(self.shapes)


def cases_of(shapes: Cases) -> tuple[Mapping[str, tuple[int, ...]], ...]:
    """Shapes as what is timed one after the other; one case without any if there are none."""
    return (shapes,) if isinstance(shapes, Mapping) else tuple(shapes) or ({},)


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise _problem(name, value, "a whole number, 1 or more")


def _check_shapes(cases: tuple[Mapping[str, tuple[int, ...]], ...]) -> None:
    for case in cases:
        for name, shape in case.items():
            if not shape or min(shape) < 0 or (len(shape) > 1 and not shape[0]):
                raise _problem(f"shape of {name!r}", "x".join(map(str, shape)), "sizes of 1 or more")


def _problem(name: str, value: object, wanted: str) -> UsageProblem:
    return UsageProblem(f"{name} is {value}", hint=f"It has to be {wanted}.", slug="bad-setting")
