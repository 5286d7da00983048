"""A model of a family, data for it, what it computes, and real statistics of its values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxq.calibration import collect, open_data
from onnxq.contract import AnyPass, Contract, names_wanted
from onnxq.passes import registry
from onnxq.pipeline import run
from onnxq.statistics import Statistic, Statistics
from onnxq.verify import Feed
from onnxq.verify.hosts import InProcess, Running
from tests.families.build import build, feeds_for
from tests.families.spec import Spec
from tests.ir import cached
from tests.property.doubled import Unknown, computed_in_float64, doubled

Arrays = Mapping[str, np.ndarray]
EXACT: Sequence[AnyPass] = [kind() for kind in registry().values() if kind.contract is not Contract.LOSSY]
"""Every registered pass that promises the same function, as it comes."""
EAGER: Sequence[AnyPass] = [
    registry()[name](**options)
    for name, options in (
        ("raise-opset", {"to": 23}),
        ("insert-scale", {"gain": 0.0}),
        ("shift-scale", {"search": "output"}),
        ("shift-scale", {"search": "token"}),
        ("insert-scale", {"search": "token", "insert_nodes": False}),
        ("fold-gamma", {"guard": 0.5}),
        ("split-channels", {"channels": 3}),
        ("split-channels", {"channels": 3, "form": "branch"}),
        ("disassemble-channels", {"gain": 0.0, "stagger": True}),
        ("permute-residual", {"scope": "all"}),
        ("split-groups", {"groups": 2}),
        ("rotate-channels", {"block": 4}),
    )
]
"""Options with which passes find more to do than they do by themselves."""
ROUNDED = 4
"""How many times constants are rounded to see what that is worth."""
EAGER_AT_ONCE = 3
"""How many of these are tried on one model."""


def passes_for(spec: Spec) -> tuple[AnyPass, ...]:
    """Every exact pass as it comes, and some with options, by turns."""
    turns = [(EAGER_AT_ONCE * spec.seed + turn) % len(EAGER) for turn in range(EAGER_AT_ONCE)]
    return (*EXACT, *(EAGER[turn] for turn in turns))


@dataclass(frozen=True)
class Subject:
    """A model on which passes are tried.

    Attributes:
        spec: Which model.
        passes: The passes; every exact one as it comes, and some with options, unless told.
        first: Passes that have made the model what it is; theirs is what it computes.
    """

    spec: Spec
    passes: tuple[AnyPass, ...] = ()
    first: tuple[AnyPass, ...] = ()

    def __post_init__(self) -> None:
        if not self.passes:
            object.__setattr__(self, "passes", passes_for(self.spec))

    @cached_property
    def model(self) -> ir.Model:
        given = self.given()
        return run(given, self.first, gather=self.gather, verify="never").model if self.first else given

    def given(self) -> ir.Model:
        """The model before the first passes."""
        return build(self.spec)

    @cached_property
    def source(self) -> Arrays:
        """What calibration sees."""
        return feeds_for(self.spec, 1, samples=8)

    @cached_property
    def feeds(self) -> list[Feed]:
        """What calibration does not see, of two sizes where sizes are open."""
        sizes = [(2, 6)] if self.spec.sizes == "fixed" else [(2, 6), (3, 9)]
        return [
            Feed(f"{samples} x {length}", feeds_for(self.spec, 2, samples=samples, length=length))
            for samples, length in sizes
        ]

    @cached_property
    def statistics(self) -> Statistics:
        """Real ones, of all values that any of its passes asks for."""
        return self.gather(self.model, names_wanted(self.passes, self.model))

    def gather(self, model: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
        """Statistics of values of `model`, which has the inputs of this one."""
        return collect(model, open_data(self.source, model), wanted, cache=False, threads=1)

    @cached_property
    def outputs(self) -> list[Arrays]:
        """What the model computes from each feed."""
        return self.computed(self.model)

    @cached_property
    def noise(self) -> list[Mapping[str, float]]:
        """How far each output is off by itself: from that of the same model in the next wider type."""
        if self.spec.dtype == "float32":
            return [
                self._noise_of(feed.arrays, outputs)
                for feed, outputs in zip(self.feeds, self.outputs, strict=True)
            ]
        twin = Subject(self.spec.twin)
        running = self.host.open(twin.model, "disabled")
        off: list[Mapping[str, float]] = []
        for feed, outputs in zip(self.feeds, self.outputs, strict=True):
            exact = running.run({name: _wide(array) for name, array in feed.arrays.items()})
            off.append({name: float(np.abs(array - outputs[name]).max()) for name, array in exact.items()})
        return off

    def _noise_of(self, feed: Arrays, outputs: Arrays) -> Mapping[str, float]:
        """The rounding of its arithmetic, and that of its constants once more, as every exact pass does it.

        Zero where float64 cannot be had: the bound is then the fixed one.
        """
        try:
            exact = computed_in_float64(doubled(self.model), feed)
        except Unknown:
            return dict.fromkeys(outputs, 0.0)
        off = [
            computed_in_float64(doubled(self.model, np.random.default_rng(seed)), feed)
            for seed in range(ROUNDED)
        ]
        return {
            name: float(np.abs(outputs[name] - array).max())
            + max(float(np.abs(other[name] - array).max()) for other in off)
            for name, array in exact.items()
        }

    def computed(self, model: ir.Model) -> list[Arrays]:
        """What `model` computes from each feed when the runtime may not optimise."""
        running = self.host.open(model, "disabled")
        return [running.run(feed.arrays) for feed in self.feeds]

    @cached_property
    def host(self) -> Kept:
        return Kept()


@dataclass(frozen=True)
class Exported(Subject):
    """A tiny decoder with a cache, as an exporter writes it; its spec tells the element type.

    Attributes:
        spelling: One of `cached.SPELLINGS`.
        weights: Factor on every matrix.
    """

    spelling: str = cached.SPELLINGS[0]
    weights: float = 1.0

    def given(self) -> ir.Model:
        model = cached.load(self.spelling)
        for value in model.graph.initializers.values():
            array = value.const_value.numpy()
            if self.weights != 1.0 and array.dtype == np.float32 and array.ndim == 2:
                value.const_value = ir.tensor(array * np.float32(self.weights), name=value.name)
        return model

    @cached_property
    def source(self) -> Arrays:
        return cached.feeds(1, 8, 4, 3)

    @cached_property
    def feeds(self) -> list[Feed]:
        calls = {"2 x 5": (2, 5, 0), "3 x 1 behind 6": (3, 1, 6), "2 x 3 behind 4": (2, 3, 4)}
        return [Feed(label, cached.feeds(2, *call, padded=True)) for label, call in calls.items()]


class Kept(InProcess):
    """Opens each model once for each level."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], tuple[ir.Model, Running]] = {}

    def open(self, model: ir.Model, level: str, /) -> Running:
        key = (id(model), level)
        if key not in self._open:
            self._open[key] = (model, super().open(model, level))
        return self._open[key][1]


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array
