"""How close two sets of outputs are, in figures that add up over many runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Outputs whose largest entry is an answer: by name, or by being as wide as a vocabulary or a list of classes.
_LOGITS = re.compile(r"logit|prob|score|class|label|softmax", re.IGNORECASE)
_VOCABULARY = 1000


@dataclass(frozen=True)
class OutputComparison:
    """One output of a reference and a candidate, over one run or several.

    Attributes:
        name: The output; an element of a sequence is called ``name[0]``, ``name[1]`` ...
        mismatch: What cannot be compared: another element type, another shape, not there; "" if nothing.
        identical: The same bits everywhere; one NaN counts as good as another.
        elements: Number of elements compared.
        wrong: Elements that differ where nothing may: integers, booleans, strings, and which elements are
            NaN or infinite.
        signal: Sum of squares of the reference.
        noise: Sum of squares of the difference.
        scale: Largest magnitude in the reference.
        max_abs: Largest difference.
        rows: Number of vectors along the last axis (one vector in all if the last axis has one element).
        cosine_sum: Sum of the cosines of those vectors.
        cosine_min: The lowest of them.
        top1_equal: Rows whose largest entry is in the same place; None if the output is not one of logits.
    """

    name: str
    mismatch: str = ""
    identical: bool = True
    elements: int = 0
    wrong: int = 0
    signal: float = 0.0
    noise: float = 0.0
    scale: float = 0.0
    max_abs: float = 0.0
    rows: int = 0
    cosine_sum: float = 0.0
    cosine_min: float = 1.0
    top1_equal: int | None = None

    @property
    def cosine_mean(self) -> float:
        """Mean cosine over rows; 1 where there is nothing to compare."""
        return self.cosine_sum / self.rows if self.rows else 1.0

    @property
    def sqnr_db(self) -> float:
        """Signal to noise in dB, 10 log10(signal / noise); infinite without noise."""
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf

    @property
    def top1(self) -> float | None:
        """Share of rows whose largest entry is in the same place."""
        return None if self.top1_equal is None or not self.rows else self.top1_equal / self.rows

    def merge(self, other: OutputComparison) -> OutputComparison:
        """Both runs together."""
        both = [self.top1_equal, other.top1_equal]
        top1 = None if both == [None, None] else sum(count or 0 for count in both)
        return OutputComparison(
            name=self.name,
            mismatch=self.mismatch or other.mismatch,
            identical=self.identical and other.identical,
            elements=self.elements + other.elements,
            wrong=self.wrong + other.wrong,
            signal=self.signal + other.signal,
            noise=self.noise + other.noise,
            scale=max(self.scale, other.scale),
            max_abs=max(self.max_abs, other.max_abs),
            rows=self.rows + other.rows,
            cosine_sum=self.cosine_sum + other.cosine_sum,
            cosine_min=min(self.cosine_min, other.cosine_min),
            top1_equal=top1,
        )


@dataclass(frozen=True)
class Comparison:
    """All outputs of a reference and a candidate, by name of the output."""

    outputs: Mapping[str, OutputComparison] = field(default_factory=dict)

    @property
    def worst(self) -> OutputComparison | None:
        """The output that is furthest off: mismatched, then wrong, then lowest SQNR; None without outputs."""
        return min(self.outputs.values(), key=_goodness, default=None)

    @property
    def sqnr_db(self) -> float:
        """The lowest SQNR of any output in dB; 0 without outputs."""
        return min((output.sqnr_db for output in self.outputs.values()), default=0.0)

    @property
    def identical(self) -> bool:
        """Whether every output has the same bits."""
        return all(output.identical and not output.mismatch for output in self.outputs.values())

    @property
    def mismatch(self) -> str:
        """The first thing that could not be compared, with the name of its output; "" if nothing."""
        return next((f"{each.name}: {each.mismatch}" for each in self.outputs.values() if each.mismatch), "")

    def merge(self, other: Comparison) -> Comparison:
        """Both runs together."""
        merged = dict(self.outputs)
        for name, output in other.outputs.items():
            merged[name] = merged[name].merge(output) if name in merged else output
        return Comparison(merged)


def compare(
    reference: Mapping[str, Any],
    candidate: Mapping[str, Any],
    *,
    keep: Mapping[str, np.ndarray] | None = None,
) -> Comparison:
    """Compare the outputs of one run.

    Args:
        reference: Outputs by name: arrays, or lists of arrays, or None for an absent optional.
        candidate: The same of the candidate.
        keep: For an output of shape ``[..., C]``, a boolean array of shape ``[...]``: the rows that count.
            Padding, which an attention mask excludes, does not.
    """
    ours, theirs = dict(_arrays(reference)), dict(_arrays(candidate))
    outputs: dict[str, OutputComparison] = {}
    for name, one in ours.items():
        other = theirs.get(name)
        mask = (keep or {}).get(name)
        outputs[name] = (
            OutputComparison(name, "is missing", False) if other is None else _output(name, one, other, mask)
        )
    for name in theirs.keys() - ours.keys():
        outputs[name] = OutputComparison(name, "is not in the reference", False)
    return Comparison(outputs)


def _arrays(outputs: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Outputs with sequences taken apart; an absent optional becomes an empty array of objects."""
    for name, value in outputs.items():
        if isinstance(value, (list, tuple)):
            yield f"{name}#", np.asarray(len(value))
            yield from _arrays({f"{name}[{index}]": element for index, element in enumerate(value)})
        elif isinstance(value, Mapping):
            yield f"{name}#", np.asarray(sorted(map(str, value)), dtype=object)
            yield from _arrays({f"{name}[{key}]": element for key, element in value.items()})
        else:
            yield name, np.asarray(value) if value is not None else np.empty(0, dtype=object)


def _output(name: str, one: np.ndarray, other: np.ndarray, keep: np.ndarray | None) -> OutputComparison:
    if one.dtype != other.dtype:
        return OutputComparison(name, f"{one.dtype} became {other.dtype}", False)
    if one.shape != other.shape:
        return OutputComparison(name, f"shape {one.shape} became {other.shape}", False)
    if keep is not None:
        one, other = one[keep], other[keep]
    same = _same_bits(one, other)
    if not is_float(one.dtype):
        wrong = int(same.size - np.count_nonzero(same))
        return OutputComparison(name, identical=wrong == 0, elements=same.size, wrong=wrong)
    return _floats(name, one, other, identical=bool(same.all()))


def _floats(name: str, one: np.ndarray, other: np.ndarray, *, identical: bool) -> OutputComparison:
    reference, candidate = _wide(one), _wide(other)
    finite = np.isfinite(reference) & np.isfinite(candidate)
    alike = finite | (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
    # Where either is not finite there is nothing to measure; `wrong` counts what does not agree there.
    reference, candidate = np.where(finite, reference, 0.0), np.where(finite, candidate, 0.0)
    reference, candidate = _rows(reference), _rows(candidate)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(reference - candidate)
        cosines = np.ones(len(reference)) if identical else _cosines(reference, candidate)
        signal, noise = float(np.square(reference).sum()), float(np.square(error).sum())
    logits = reference.shape[1] > 1 and (_LOGITS.search(name) or reference.shape[1] >= _VOCABULARY)
    return OutputComparison(
        name=name,
        identical=identical,
        elements=one.size,
        wrong=int(alike.size - np.count_nonzero(alike)),
        signal=signal,
        noise=noise,
        scale=float(np.abs(reference).max(initial=0.0)),
        max_abs=float(error.max(initial=0.0)),
        rows=len(cosines),
        cosine_sum=float(cosines.sum()),
        cosine_min=float(cosines.min(initial=1.0)),
        top1_equal=int((reference.argmax(1) == candidate.argmax(1)).sum()) if logits else None,
    )


def _rows(array: np.ndarray) -> np.ndarray:
    """`array` as a matrix of row vectors along its last axis; one row if that axis has one element."""
    if array.size == 0:
        return array.reshape(0, 1)
    width = array.shape[-1] if array.ndim else 1
    return array.reshape(-1, width) if width > 1 else array.reshape(1, -1)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows: two zero rows agree, one zero row agrees with nothing else."""
    lengths = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    product = lengths[0] * lengths[1]
    cosines = np.divide((one * other).sum(1), product, out=np.zeros(len(one)), where=product > 0)
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    return np.where(both_zero, 1.0, np.clip(cosines, -1.0, 1.0))


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` holds real or complex numbers that are rounded, down to the 4-bit floats."""
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))


def _wide(array: np.ndarray) -> np.ndarray:
    """`array` as float64; the two parts of a complex number side by side in the last axis."""
    if array.dtype.kind == "c":
        parts = np.stack([array.real, array.imag], axis=-1)
        return np.asarray(parts, np.float64)
    with np.errstate(invalid="ignore"):
        return array.astype(np.float64)


def _same_bits(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Element by element, whether the bits are equal; one NaN is as good as another."""
    if one.dtype == object or one.dtype.kind in "US":
        equal = [left == right for left, right in zip(one.flat, other.flat, strict=True)]
        return np.asarray(equal, np.bool_).reshape(one.shape)
    if one.dtype.kind == "c":
        both: np.ndarray = _same_bits(one.real, other.real) & _same_bits(one.imag, other.imag)
        return both
    unsigned = np.dtype(f"u{one.dtype.itemsize}")
    views = [np.ascontiguousarray(each).view(unsigned) for each in (one, other)]
    bits: np.ndarray = np.equal(*views).reshape(one.shape)
    if not is_float(one.dtype):
        return bits
    either: np.ndarray = bits | (np.isnan(_wide(one)) & np.isnan(_wide(other)))
    return either


def _goodness(output: OutputComparison) -> tuple[bool, int, float]:
    return (not output.mismatch, -output.wrong, output.sqnr_db)
