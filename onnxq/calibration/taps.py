"""Looking at values inside a model while it runs, within a bound on memory.

The values that are asked for become the outputs of a copy of the model, its own outputs are dropped (logits
are often its largest values) and so is every node that nothing needs any more. Where the values of one run
would not fit into memory together, the data is run through several times, with a part of them each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.calibration.inputs import is_float
from onnxq.calibration.source import Batch, DataSource
from onnxq.calibration.tokens import Mask, batch_bytes, key_of, masks_of, sample_keys, tokens_by_sample
from onnxq.errors import CalibrationError

MEMORY = 512 * 2**20
"""Bytes that the observed values of one run may take together."""

NO_FLOATS = "holds no floats"
"""Why a value has no statistics; found before the run where its type is declared, else in it."""

Report = Callable[[int, int], None]
"""Told of progress: samples done, and samples to do in all."""

_SLEEPING = ("session.intra_op.allow_spinning", "0")
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


@dataclass(frozen=True)
class Sighting:
    """What one sample showed of one value.

    Attributes:
        name: The value.
        tokens: Floats [T, C], without padding, finite unless `masked`.
        key: Hash of the content of the sample.
        masked: Whether constants of an attention mask are among them; those are no data.
    """

    name: str
    tokens: npt.NDArray[np.floating[Any]]
    key: int
    masked: bool


@dataclass(frozen=True)
class Targets:
    """Which values can be looked at.

    Attributes:
        inputs: Graph inputs, read off the feeds.
        computed: Values of the main graph, in the order of their nodes.
        skipped: The others, and why not.
    """

    inputs: tuple[str, ...]
    computed: tuple[str, ...]
    skipped: Mapping[str, str]


def find_targets(model: ir.Model, names: Collection[str], *, floats: bool = True) -> Targets:
    """Sort `names` into what a run can show and what it cannot.

    Args:
        model: The model.
        names: Names of values.
        floats: Leave out values that are declared to be of another element type.
    """
    graph = model.graph
    fed = {value.name: value for value in graph.inputs}
    computed = {value.name: value for node in graph for value in node.outputs}
    constants = set(graph.initializers) | {
        node.outputs[0].name for node in graph if node.op_type == "Constant" and node.outputs
    }
    skipped = {}
    for name in names:
        value = computed.get(name, fed.get(name))
        if name in constants:
            skipped[name] = "is a constant"
        elif value is None:
            skipped[name] = _absence(model, name)
        elif floats and value.dtype is not None and value.dtype not in _FLOATS:
            skipped[name] = NO_FLOATS
    wanted = set(names) - set(skipped)
    return Targets(
        tuple(name for name in fed if name in wanted and name),
        tuple(name for name in computed if name in wanted and name),
        skipped,
    )


def observe(
    model: ir.Model,
    source: DataSource,
    targets: Targets,
    *,
    memory: int = MEMORY,
    threads: int = 0,
    report: Report | None = None,
) -> Iterator[Sighting]:
    """Run the data through the model and show each value, sample by sample.

    Args:
        model: What to run; not changed.
        source: The data.
        targets: Values to show.
        memory: Bytes for the values of one run; a single larger value is shown all the same.
        threads: Threads of the runtime; 0 leaves it to the runtime.
        report: Called after each run.

    Raises:
        CalibrationError: The data cannot be read.
        BackendError: The runtime refuses the model or fails.
    """
    parts = parts_of(model, source, targets.computed, memory)
    total, done, shown = len(source) * len(parts), 0, False
    for number, part in enumerate(parts):
        for batch, values in _runs(model, source, part, threads):
            if number == 0:
                values.update({name: batch.feeds[name] for name in targets.inputs})
            masks = masks_of(batch.feeds, source.specs)
            shown = shown or not masks or any(bool(mask.any()) for mask in masks)
            yield from _sightings(values, batch, masks)
            done += batch.samples
            if report is not None:
                report(done, total)
    if not shown:
        raise CalibrationError(
            f"{source.reader.origin}: every position is padding",
            hint="the attention mask must be 1 where there is data",
            slug="all-padding",
        )


def tapped(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of `model`, weights shared, that computes the values `names` and nothing else."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    RemoveUnusedNodesPass()(copy)
    return copy


def open_tapped(model: ir.Model, names: Sequence[str], threads: int = 0) -> Any:
    """A session that computes the values `names` of `model` and nothing else."""
    return _session(tapped(model, names), threads)


def _runs(
    model: ir.Model, source: DataSource, names: Sequence[str], threads: int
) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Each batch and what the values `names` are on it; the session lives as long as this does."""
    session = open_tapped(model, names, threads) if names else None
    for batch in source.batches():
        yield batch, session.run(batch.feeds, list(names)) if session is not None else {}


def _sightings(values: dict[str, Any], batch: Batch, masks: Sequence[Mask]) -> Iterator[Sighting]:
    keys = sample_keys(batch.feeds, batch.samples, masks)
    for name in list(values):
        array = np.asarray(values.pop(name))  # let go of each value once it has been seen
        if not is_float(array.dtype):
            continue
        for sample, tokens in tokens_by_sample(array, batch.samples, masks):
            if tokens.size:
                masked = holds_mask(tokens, array.dtype, name)
                yield Sighting(name, tokens, key_of(sample, keys), masked)


def parts_of(
    model: ir.Model, source: DataSource, names: tuple[str, ...], memory: int
) -> list[tuple[str, ...]]:
    """Divide `names`, in order, so that the values of each part fit into `memory` in the largest run."""
    if not names:
        return [()]
    sizes = _sizes(model, source, names)
    parts: list[list[str]] = [[]]
    room = memory
    for name in names:
        if parts[-1] and sizes[name] > room:
            parts.append([])
            room = memory
        parts[-1].append(name)
        room -= sizes[name]
    return [tuple(part) for part in parts]


def _sizes(model: ir.Model, source: DataSource, names: Sequence[str]) -> dict[str, int]:
    """Bytes that each value takes in the largest run, or a little more; found by a run that gives shapes.

    Where all samples have one shape a run of one sample tells, and the others take as much each.
    """
    times, batch = 1, None
    if not source.reader.uniform:
        batch = max(source.batches(), key=lambda batch: batch_bytes(batch.feeds))
    elif not source.whole_batches and source.batch_size > 1:
        times = min(source.batch_size, len(source))
        source = replace(source.select(source.indices[:1]), batch_size=1)
    batch = batch or next(source.batches())
    found = shapes_in_run(model, names, batch.feeds)
    return {name: times * 4 * int(np.prod(found[name], dtype=np.float64)) for name in names}


def shapes_in_run(
    model: ir.Model, names: Sequence[str], feeds: Mapping[str, Any], threads: int = 0
) -> dict[str, tuple[int, ...]]:
    """The shapes of the computed values `names` in one run; the values themselves stay in the runtime.

    Args:
        model: What to run; not changed.
        names: Values of the main graph, none of them an input or a constant.
        feeds: An array for each input.
        threads: Threads of the runtime; 0 leaves it to the runtime.
    """
    copy = tapped(model, names)
    taken = {value.name for node in copy.graph for value in node.outputs}
    shapes = []
    for number, value in enumerate(list(copy.graph.outputs)):
        name = f"onnxq_shape_{number}"
        while name in taken:
            name += "_"
        node = ir.node("Shape", [value], outputs=[ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64))])
        copy.graph.append(node)
        shapes.append(node.outputs[0])
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(shapes)
    found = _session(copy, threads).run(feeds)
    return {name: tuple(found[shape.name or ""].tolist()) for name, shape in zip(names, shapes, strict=True)}


def _session(model: ir.Model, threads: int) -> Any:
    """Its threads sleep between runs: statistics are made there, on the same cores."""
    from onnxq.runtime import SessionSettings, open_session

    return open_session(model, SessionSettings(threads=threads, level="disabled", config=(_SLEEPING,)))


def _absence(model: ir.Model, name: str) -> str:
    """Why no run can show a value that the main graph does not have."""
    for part in model.graphs():
        values = [*part.inputs, *(value for node in part for value in node.outputs)]
        if any(value.name == name for value in values):
            return "is inside a subgraph, which the runtime does not show"
    for function in model.functions.values():
        if any(value.name == name for node in function.all_nodes() for value in node.outputs):
            return "is inside a function, which the runtime does not show"
    return "is no value of the model"


def holds_mask(tokens: npt.NDArray[np.floating[Any]], dtype: np.dtype[Any], name: str) -> bool:
    """Whether tokens hold what a mask adds to scores: minus infinity, or about the least float there is.

    Raises:
        CalibrationError: They hold NaN or plus infinity.
    """
    low, high = float(tokens.min()), float(tokens.max())
    if np.isnan(low) or high == np.inf:
        raise CalibrationError(
            f"the model computes {'NaN' if np.isnan(low) else 'infinity'} in {name!r} on this data",
            hint="look for samples unlike the rest, or for an overflow in a 16-bit model",
            slug="non-finite-activation",
        )
    return low < 0.9 * float(ml_dtypes.finfo(dtype).min)
