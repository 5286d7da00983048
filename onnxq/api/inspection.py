"""What onnxq sees in a model, and how hard it is to quantize."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from onnxq.api import records
from onnxq.api.layers import channel_ratio
from onnxq.api.quantized import look_at_kernels
from onnxq.api.stage import Progress, Stage, silent
from onnxq.calibration import collect
from onnxq.contract import Reject
from onnxq.interop import Acceptable, as_model
from onnxq.ir.activation import Activation, find_gelu, find_silu
from onnxq.ir.attention import AttentionBlock, find_attention
from onnxq.ir.cache import Cached, find_cached
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import nodes
from onnxq.passes.clean.inline_functions import InlineFunctions
from onnxq.pipeline import run
from onnxq.recipe import DataSettings
from onnxq.report.measures import Rejection
from onnxq.report.results import Inspection
from onnxq.report.rows import OutlierRow, Part
from onnxq.statistics import Statistic

TOWERING = 10.0
"""Channel ratio from which plain 8-bit quantization visibly loses."""


def inspect(
    model: Acceptable,
    calibration: Any = None,
    *,
    data: DataSettings | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """The linears, norms, activations, attention blocks and embeddings of a model, and its outliers.

    A quantized model is opened in the runtime as well, to see which of its products reach their kernels.

    Args:
        model: As for `optimize`.
        calibration: Data to look for outliers with; without it there is none of that.
        data: How the data is read.
        threads: Threads of the runtime; None for all cores.
        progress: Called with a stage in words, steps done and steps in all.
    """
    told = progress or silent
    if calibration is None:
        opened, used = as_model(model), None
        outliers: tuple[OutlierRow, ...] = ()
    else:
        stage = Stage.undivided(model, calibration, data, threads=threads, progress=progress)
        opened = stage.model
        outliers = _outliers(replace(stage, model=_inlined(opened)))
        used = records.held_out_record(stage.calibration)
    told("looking at the graph", 0, 0)
    parts, near_misses = _parts(_inlined(opened))
    quantized = look_at_kernels(opened)
    return Inspection(
        model=records.model_record(opened, records.name_of(model, opened)),
        counts=dict(Counter(part.kind for part in parts)),
        parts=parts,
        near_misses=near_misses,
        outliers=outliers,
        data=used,
        hints=quantized.hints or _hints(outliers, calibration is not None),
        kernels=quantized.kernels,
        traps=quantized.traps,
    )


def _inlined(model: ir.Model) -> ir.Model:
    """The model without its functions, as `optimize` looks at it."""
    return run(model, [InlineFunctions()], verify="never").model if model.functions else model


def _parts(model: ir.Model) -> tuple[tuple[Part, ...], tuple[Rejection, ...]]:
    parts: list[Part] = []
    near: dict[Rejection, None] = {}
    for node in nodes(model):
        for found in _found_at(node):
            if isinstance(found, Reject):
                near.setdefault(Rejection(found.reason, found.node or str(node.name)))
            else:
                parts.append(_part(node, found))
    return tuple(parts), tuple(near)


def _found_at(node: ir.Node) -> Iterator[Any]:
    for finder in (find_linear, find_norm, find_gelu, find_silu, find_attention, find_embedding):
        found = finder(node)
        if found is not None:
            yield found
    yield from find_cached(node)


def _part(node: ir.Node, found: Any) -> Part:
    name = str(node.name or node.outputs[0].name)
    if isinstance(found, Linear):
        spelling = node.op_type + (" + Add" if found.bias_node is not None else "")
        return Part("linear", name, spelling, f"{found.channels} x {found.columns}")
    if isinstance(found, Norm):
        return Part("norm", name, _spelling(found.kind, found.nodes), f"{found.channels} channels")
    if isinstance(found, Activation):
        return Part("activation", name, _spelling(found.kind, found.nodes))
    if isinstance(found, Embedding):
        tied = " (tied)" if found.tied else ""
        return Part("embedding", name, f"Gather{tied}", f"{found.rows} x {found.channels}")
    if isinstance(found, AttentionBlock):
        return Part("attention", name, _attention_spelling(found), _heads_of(found))
    if isinstance(found, Cached):
        size = f"{found.heads} heads of {found.size}" if found.heads and found.size else ""
        return Part("cache", str(found.past.name), f"{found.node.op_type} to {found.present.name}", size)
    raise TypeError(type(found))


def _heads_of(block: AttentionBlock) -> str:
    heads = block.heads
    if heads is None:
        return ""
    shared = f", {heads.keys} of keys" if heads.keys != heads.queries else ""
    return f"{heads.queries} heads of {heads.size}{shared}"


def _attention_spelling(block: AttentionBlock) -> str:
    told = {"rotary": block.is_rotary, "cross": block.is_cross, "cached": block.is_cached}
    return ", ".join(word for word, holds in told.items() if holds)


def _spelling(kind: str, parts: tuple[ir.Node, ...]) -> str:
    return f"{kind}, {parts[0].op_type}" if len(parts) == 1 else f"{kind}, {len(parts)} nodes"


def _outliers(stage: Stage) -> tuple[OutlierRow, ...]:
    """One row an input of linears, the most uneven first."""
    readers: dict[str, str] = {}
    for node in nodes(stage.model):
        linear = find_linear(node)
        if isinstance(linear, Linear):
            readers.setdefault(str(linear.activation.name), str(node.name))
    kinds = (Statistic.CHANNEL_EXTREMES, Statistic.RAW_MOMENTS)
    seen = collect(
        stage.model,
        stage.calibration,
        {kind: set(readers) for kind in kinds},
        threads=stage.threads,
        progress=lambda done, total: stage.progress("looking for outliers", done, total),
    )
    rows = []
    for name, reader in readers.items():
        found = seen.get(name)
        ratio = channel_ratio(found)
        if found is None or ratio is None:
            continue
        kurtosis = found.raw.kurtosis if found.raw is not None else None
        norm = found.raw.infinity_norm if found.raw is not None else float(max(-found.low, found.high))
        rows.append(OutlierRow(name, reader, norm, kurtosis, ratio))
    return tuple(sorted(rows, key=lambda row: -row.channel_ratio))


def _hints(outliers: tuple[OutlierRow, ...], looked: bool) -> tuple[str, ...]:
    if not looked:
        return ("With --calib DATA the outliers of its activations are shown too.",)
    towering = sum(row.channel_ratio >= TOWERING for row in outliers)
    if not towering:
        return ("No channel towers over the others: plain 8-bit quantization should do.",)
    told = (
        f"{towering} of {len(outliers)} inputs of linears have a channel at least {TOWERING:g} times the "
        f"median one: plain 8-bit quantization loses there; shift-scale and insert-scale are made for it."
    )
    return (told,)
