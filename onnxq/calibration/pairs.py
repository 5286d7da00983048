"""The same activations in a model and in its quantized form, as sums of products.

What a quantized prefix does to the input of a linear is what least squares corrects, what rounding by QDrop's
objective prepares for, and what a bias correction takes back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.calibration.inputs import is_float
from onnxq.calibration.source import Batch, DataSource
from onnxq.calibration.sums import PairSum
from onnxq.calibration.taps import MEMORY, Report, find_targets, holds_mask, open_tapped, parts_of
from onnxq.calibration.tokens import masks_of, tokens_by_sample
from onnxq.errors import CalibrationError
from onnxq.statistics import PairedMoments

Floats = npt.NDArray[np.floating[Any]]


def gather_pairs(
    model: ir.Model,
    quantized: ir.Model,
    source: DataSource,
    names: Collection[str] | Mapping[str, str],
    *,
    threads: int = 0,
    progress: Report | None = None,
    memory: int = MEMORY,
) -> dict[str, PairedMoments]:
    """Moments of values of a model and of their counterparts in its quantized form, on the same data.

    Both models run batch by batch. The sums of one value of C channels take 24 C^2 bytes, so ask for no more
    values at a time than will be used.

    Args:
        model: The model in float; not changed.
        quantized: Its quantized form, or one whose quantized part ends before the values; not changed.
        source: Data for both.
        names: Values to look at; a mapping where the counterpart has another name.
        threads: Threads of the runtime; 0 leaves it to the runtime.
        progress: Told the samples done and to do in all, after each run.
        memory: Bytes for the observed values of one run of both models; more values mean more runs.

    Raises:
        CalibrationError: A value cannot be looked at in one of the models, has no fixed number of channels,
            differs in shape, or is not finite.
        BackendError: The runtime refuses a model or fails.
    """
    counterparts = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    computed = _require(model, counterparts, "the model")
    _require(quantized, set(counterparts.values()), "the quantized model")
    parts = parts_of(model, source, computed, memory // 2)
    fed = [name for name in counterparts if name not in computed]
    sums: dict[str, PairSum] = {}
    total, done = len(source) * len(parts), 0
    for number, part in enumerate(parts):
        chosen = {name: counterparts[name] for name in (*part, *(fed if number == 0 else ()))}
        for batch, pairs in _runs(model, quantized, source, chosen, threads):
            for name, plain, coarse in pairs:
                channels = plain.shape[1]
                if name not in sums:
                    sums[name] = PairSum(channels, plain.dtype)
                if sums[name].channels != channels:
                    raise _no_pair(name, counterparts[name], "has a last axis of varying length")
                sums[name].add(plain, coarse)
            done += batch.samples
            if progress is not None:
                progress(done, total)
    return {name: sums[name].result() for name in counterparts if name in sums}


def _require(model: ir.Model, names: Collection[str], where: str) -> tuple[str, ...]:
    """The values among `names` that nodes compute.

    Raises:
        CalibrationError: A run cannot show some of them.
    """
    targets = find_targets(model, names)
    if targets.skipped:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in targets.skipped.items())
        raise CalibrationError(f"cannot pair activations in {where}: {reasons}", slug="cannot-observe")
    return targets.computed


def _runs(
    model: ir.Model, quantized: ir.Model, source: DataSource, names: Mapping[str, str], threads: int
) -> Iterator[tuple[Batch, Iterator[tuple[str, Floats, Floats]]]]:
    """Each batch, and the tokens of each value in both models; the sessions live as long as this does."""
    both = [_Watched(model, list(names), threads), _Watched(quantized, list(names.values()), threads)]
    for batch in source.batches():
        plain, coarse = (watched.run(batch) for watched in both)
        yield batch, _pairs(plain, coarse, names, batch, source)


class _Watched:
    """A model that shows some of its values."""

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int) -> None:
        fed = {value.name for value in model.graph.inputs}
        self.fed = [name for name in names if name in fed]
        self.computed = list(dict.fromkeys(name for name in names if name not in fed))
        self.session = open_tapped(model, self.computed, threads) if self.computed else None

    def run(self, batch: Batch) -> dict[str, Any]:
        values = self.session.run(batch.feeds, self.computed) if self.session is not None else {}
        return {**values, **{name: batch.feeds[name] for name in self.fed}}


def _pairs(
    plain: dict[str, Any], coarse: dict[str, Any], names: Mapping[str, str], batch: Batch, source: DataSource
) -> Iterator[tuple[str, Floats, Floats]]:
    masks = masks_of(batch.feeds, source.specs)
    for name, counterpart in names.items():
        one, other = np.asarray(plain.pop(name)), np.asarray(coarse[counterpart])
        if one.shape != other.shape or not (is_float(one.dtype) and is_float(other.dtype)):
            kinds = f"is {one.dtype}{one.shape} in one model and {other.dtype}{other.shape} in the other"
            raise _no_pair(name, counterpart, kinds)
        lefts, rights = (tokens_by_sample(array, batch.samples, masks) for array in (one, other))
        for (_, left), (_, right) in zip(lefts, rights, strict=True):
            if not left.size:
                continue
            if holds_mask(left, one.dtype, name) or holds_mask(right, other.dtype, counterpart):
                raise _no_pair(name, counterpart, "holds constants of an attention mask")
            yield name, left, right


def _no_pair(name: str, counterpart: str, reason: str) -> CalibrationError:
    both = repr(name) if name == counterpart else f"{name!r} and {counterpart!r}"
    return CalibrationError(f"cannot pair activations: {both} {reason}", slug="cannot-observe")
