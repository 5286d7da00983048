"""A model of a family, data for it, what it computes, and real statistics of its values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir
import onnxruntime

from onnxq.calibration import collect, open_data
from onnxq.contract import AnyPass, Contract, Pass
from onnxq.passes import registry
from onnxq.passes.clean.raise_opset import RaiseOpset
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.statistics import Statistic, Statistics
from onnxq.verify import Feed
from tests.families.build import build, feeds_for
from tests.families.spec import Spec

Arrays = Mapping[str, np.ndarray]
EXACT: Sequence[AnyPass] = [kind() for kind in registry().values() if kind.contract is not Contract.LOSSY]
"""Every registered pass that promises the same function, as it comes."""
EAGER: Sequence[AnyPass] = [RaiseOpset(to=23), InsertScale(gain=0.0)]
"""Passes with options that make them fire more often than they do by themselves."""


@dataclass(frozen=True)
class Subject:
    """A model on which passes are tried."""

    spec: Spec

    @cached_property
    def model(self) -> ir.Model:
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
        """Of all values that any exact pass asks for."""
        wanted: dict[Statistic, set[str]] = {}
        for each in [*EXACT, *EAGER]:
            for kind, values in (each.wanted(self.model) if isinstance(each, Pass) else {}).items():
                wanted.setdefault(kind, set()).update(str(value.name) for value in values)
        return self.gather(self.model, wanted)

    def gather(self, model: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
        """Statistics of values of `model`, which has the inputs of this one."""
        return collect(model, open_data(self.source, model), wanted, cache=False, threads=1)

    @cached_property
    def outputs(self) -> list[Arrays]:
        """What the model computes from each feed."""
        return computed(self.model, self.feeds)


def computed(model: ir.Model, feeds: Sequence[Feed]) -> list[Arrays]:
    """What onnxruntime makes of each feed when it may not optimise."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(feed.arrays)), strict=True)) for feed in feeds]
