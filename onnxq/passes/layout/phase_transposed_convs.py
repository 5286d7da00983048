"""ConvTranspose(x), stride s  =>  crop(DepthToSpace(Conv(x)))

Position p of the whole result is s q + c: its phase c meets every s-th tap of the kernel alone. So each phase
is a convolution of x itself with kernel ceil(k / s), all phases together one with s * s times the output
channels, and DepthToSpace deals them out; kernel = stride makes that a plain product. What the transposed
convolution cuts off is cut off in whole positions by the convolution's padding and the rest by a Slice.

Fires on two spatial axes with one stride, no dilation and no groups, where taps that no phase has (a kernel
that is no multiple of the stride) cost at most `waste` times the products. A function of single elements
behind it stays next to the convolution, which runtimes fuse it into.

ONNX Runtime computes ConvTranspose as a product and a scattered sum; a Conv reaches its blocked kernels and,
quantized, its integer ones: the decoder of a vision transformer took 22 ms, 18 as this, 4.4 in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.errors import UsageProblem
from onnxq.ir.convolution import Convolution, find_convolution, is_pointwise, only_reader, size_along
from onnxq.ir.precision import round_once
from onnxq.passes.vision_evidence import phase_examples

_TO_THE_END = np.iinfo(np.int64).max
_SIDES = 2


@dataclass(frozen=True)
class Phases:
    """How a transposed convolution falls into phases. Pairs are of the two spatial axes.

    Attributes:
        convolution: What was found.
        taps: Kernel of one phase.
        begins: Padding of the new convolution in front.
        ends: The same behind.
        first: Positions that the Slice cuts off in front.
        last: The same behind.
    """

    convolution: Convolution
    taps: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def stride(self) -> int:
        """Of both axes."""
        return self.convolution.strides[0]


@dataclass(frozen=True)
class PhaseTransposedConvs(Pass):
    """Transposed convolution => convolution with all phases as channels, DepthToSpace, Slice.

    Attributes:
        waste: Products of the new convolution over those of the old one, at most.
    """

    waste: float = 1.3

    name: ClassVar[str] = "phase-transposed-convs"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=11)

    def __post_init__(self) -> None:
        if not self.waste >= 1:
            raise UsageProblem(
                f"phase-transposed-convs: waste is {self.waste}",
                hint="It has to be 1 or more.",
                slug="bad-setting",
            )

    def match(self, node: ir.Node, context: Context) -> Phases | Reject | None:
        """A transposed convolution that falls into phases."""
        found = find_convolution(node)
        if not isinstance(found, Convolution):
            return found if node.op_type == "ConvTranspose" else None
        if not found.transposed:
            return None
        if reason := self._obstacle(found):
            return Reject(reason, label_of(node))
        phases = _phases(found)
        if any(cut < 0 for cut in _behind(found, phases.taps)):
            return Reject("it adds more than a phase has", label_of(node))
        return phases

    def rewrite(self, found: Phases, edit: Edit) -> None:
        """Convolve, apply what follows element by element, deal out, crop."""
        convolution = found.convolution
        node, label = convolution.node, label_of(convolution.node)
        inputs = [convolution.activation, edit.constant(_weight(found), f"{label}_phases", near=node)]
        if convolution.bias is not None:
            repeated = np.tile(convolution.bias, found.stride**2)
            inputs.append(edit.constant(round_once(repeated, convolution.dtype), f"{label}_bias", near=node))
        attributes = {"kernel_shape": found.taps, "pads": (*found.begins, *found.ends), "strides": (1, 1)}
        (made,) = edit.insert("Conv", inputs, attributes, before=node, names=[f"{label}_convolved"])
        _describe(made, found, dealt=False)
        last = node
        while is_pointwise(reader := only_reader(last.outputs[0])) and reader is not None:
            behind = [made, *reader.inputs[1:]]
            (other,) = edit.insert(
                reader.op_type,
                behind,
                dict(reader.attributes),
                before=reader,
                names=[f"{label}_{reader.op_type}"],
            )
            _describe(other, found, dealt=False)
            made, last = other, reader
        edit.take_over(last.outputs[0], _dealt(made, found, last, edit))

    def _obstacle(self, found: Convolution) -> str:
        if len(found.kernel) != _SIDES or len(set(found.strides)) > 1:
            return "DepthToSpace deals out two axes by one number"
        if found.strides[0] == 1:
            return "its stride is 1"
        if found.groups > 1 or max(found.dilations) > 1:
            return "it has groups or a dilation"
        cost = 1.0
        for size in found.kernel:
            cost *= -(-size // found.strides[0]) * found.strides[0] / size
        if cost > self.waste:
            return f"its kernel is no multiple of its stride: {cost:.2f} times the products"
        return ""

    @classmethod
    def examples(cls) -> Examples:
        """Kernels of one and several taps a phase, padded and not; odd strides, groups, kernels."""
        return phase_examples()


def _phases(found: Convolution) -> Phases:
    """Cut in whole positions by the padding, the rest by the Slice.

    Unpadded, phase convolutions give taps - 1 positions more than the input has on each axis.
    """
    stride = found.strides[0]
    taps = tuple(-(-size // stride) for size in found.kernel)
    behind = _behind(found, taps)
    sides = [
        [min(cut // stride, tap - 1) for tap, cut in zip(taps, cuts, strict=True)]
        for cuts in (found.begins, behind)
    ]
    begins, ends = (tuple(tap - 1 - w for tap, w in zip(taps, whole, strict=True)) for whole in sides)
    first, last = (
        tuple(cut - stride * w for cut, w in zip(cuts, whole, strict=True))
        for cuts, whole in zip((found.begins, behind), sides, strict=True)
    )
    return Phases(found, taps, begins, ends, first, last)


def _behind(found: Convolution, taps: tuple[int, ...]) -> tuple[int, ...]:
    """How many positions of the unpadded phases lie behind the result; negative where they do not reach."""
    sizes = zip(taps, found.kernel, found.output_padding, found.ends, strict=True)
    return tuple(found.strides[0] * tap - size - added + end for tap, size, added, end in sizes)


def _weight(found: Phases) -> np.ndarray:
    """[stride * stride * columns, channels, taps, taps]; channel (c, d, n) is column n of phase (c, d)."""
    old, stride = found.convolution.weight, found.stride
    spread = [
        (0, stride * tap - size) for tap, size in zip(found.taps, found.convolution.kernel, strict=True)
    ]
    full = np.pad(old, [(0, 0), (0, 0), *spread])
    channels, columns = old.shape[:2]
    parts = full.reshape(channels, columns, found.taps[0], stride, found.taps[1], stride)
    # A convolution meets its input forwards, a transposed one backwards.
    turned = parts[:, :, ::-1, :, ::-1, :].transpose(3, 5, 1, 0, 2, 4)
    return round_once(turned.reshape(-1, channels, *found.taps), found.convolution.dtype)


def _dealt(value: ir.Value, found: Phases, near: ir.Node, edit: Edit) -> ir.Value:
    """DepthToSpace and, where something is left to cut, Slice."""
    label = label_of(found.convolution.node)
    attributes = {"blocksize": found.stride, "mode": "DCR"}
    (whole,) = edit.insert("DepthToSpace", [value], attributes, before=near, names=[f"{label}_dealt"])
    _describe(whole, found, dealt=True)
    if not any((*found.first, *found.last)):
        return whole
    ends = [-cut if cut else _TO_THE_END for cut in found.last]
    numbers = [
        edit.constant(np.array(each, np.int64), f"{label}_{what}", near=near)
        for each, what in ((found.first, "first"), (ends, "last"), ((2, 3), "axes"))
    ]
    return edit.insert("Slice", [whole, *numbers], before=near, names=[f"{label}_cropped"])[0]


def _describe(value: ir.Value, found: Phases, *, dealt: bool) -> None:
    """Type and shape, as far as those of the input tell."""
    source, stride = found.convolution.activation, found.stride
    value.type = source.type
    if source.shape is None or len(source.shape) != 2 + _SIDES:
        return
    sizes: list[int | ir.SymbolicDim | str | None] = []
    for axis in range(_SIDES):
        size = size_along(source, 2 + axis)
        more = found.begins[axis] + found.ends[axis] - found.taps[axis] + 1
        sizes.append(None if size is None else (size + more) * (stride if dealt else 1))
    columns = found.convolution.columns * (1 if dealt else stride**2)
    value.shape = ir.Shape([source.shape[0], columns, *sizes])
