"""Conv1x1(up(x))  =>  up(Conv1x1(x)),  fewer channels out than in

up: DepthToSpace, linear, cubic or nearest Resize of the spatial axes, and crops between them. An upsampled
element is a weighted mean of elements of one channel (weights that sum to 1), or one of them, and a 1x1
convolution treats every position alike, so the two commute, the bias with them; then only the few channels
that are left are upsampled, and fewer positions are convolved. In front of DepthToSpace with blocks of s the
weight stands s * s times on a diagonal of blocks, which costs s * s times the products at each position: it
fires where `columns` s * s is no more than the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.convolution import Convolution, find_convolution, only_reader
from onnxq.ir.precision import round_once
from onnxq.ir.walk import attribute, constant_of, constant_shape, input_of, is_op, producer
from onnxq.passes.vision_evidence import narrow_examples

_AXES = 4
_CHANNEL = 1


@dataclass(frozen=True, eq=False)
class Upsampled:
    """A narrowing convolution behind upsampling.

    Attributes:
        convolution: What was found.
        chain: What comes in front of it, the first to run first.
        source: What the chain reads.
    """

    convolution: Convolution
    chain: tuple[ir.Node, ...]
    source: ir.Value


@dataclass(frozen=True)
class NarrowBeforeUpsampling(Pass):
    """1x1 convolution to fewer channels behind an upsampling => in front of it."""

    name: ClassVar[str] = "narrow-before-upsampling"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=11)

    def match(self, node: ir.Node, context: Context) -> Upsampled | Reject | None:
        """A 1x1 convolution that reads upsampled channels alone and leaves fewer."""
        found = find_convolution(node)
        if not isinstance(found, Convolution) or not found.is_pointwise or found.transposed:
            return None
        if found.activation.producer() is None or found.columns >= found.channels:
            return None
        chain, reason = _chain_to(found)
        if reason:
            return Reject(reason, label_of(node))
        while chain and is_op(chain[0], "Slice"):
            chain = chain[1:]  # a crop in front makes the convolution smaller
        if not chain or chain[0].inputs[0] is None:
            return None
        return Upsampled(found, chain, chain[0].inputs[0])

    def rewrite(self, found: Upsampled, edit: Edit) -> None:
        """Convolve the source, then upsample what is left."""
        convolution = found.convolution
        node, label = convolution.node, label_of(convolution.node)
        copies = int(np.prod([_blocks(each) for each in found.chain]))
        weight = convolution.weight[:, :, 0, 0]
        bias = convolution.bias
        for each in reversed(found.chain):
            weight = _spread(weight, each)
            bias = None if bias is None else _repeated(bias, each)
        inputs = [
            found.source,
            edit.constant(
                round_once(weight[:, :, None, None], convolution.dtype), f"{label}_early", near=node
            ),
        ]
        if bias is not None:
            inputs.append(edit.constant(round_once(bias, convolution.dtype), f"{label}_bias", near=node))
        attributes = {"kernel_shape": (1, 1)}
        (value,) = edit.insert("Conv", inputs, attributes, before=node, names=[f"{label}_convolved"])
        _describe(value, found.source, convolution.columns * copies)
        for each in found.chain:
            value = _again(each, value, convolution, edit)
        edit.take_over(convolution.output, value)

    @classmethod
    def examples(cls) -> Examples:
        """Behind DepthToSpace, crops and resizes; widening ones, shared ones, sizes that are computed."""
        return narrow_examples()


def _chain_to(found: Convolution) -> tuple[tuple[ir.Node, ...], str]:
    """What upsamples the input of a convolution; why nothing of it can be passed, "" if something can."""
    chain: list[ir.Node] = []
    value = found.activation
    while (node := producer(value, "DepthToSpace", "Resize", "Slice")) is not None:
        if only_reader(value) is None or value is not node.outputs[0]:
            return tuple(chain), "" if chain else "what is upsampled is read elsewhere"
        if reason := _obstacle(node, found, chain):
            return tuple(chain), "" if chain else reason
        source = node.inputs[0]
        if source is None:
            break
        chain.insert(0, node)
        value = source
    return tuple(chain), ""


def _obstacle(node: ir.Node, found: Convolution, chain: list[ir.Node]) -> str:
    """Why a 1x1 convolution does not commute with `node`; "" if it does."""
    if any(each.is_ref() for each in node.attributes.values()):
        return "an attribute is an argument of the enclosing function"
    if is_op(node, "Slice"):
        axes = constant_of(input_of(node, 3))
        spatial = axes is not None and all(int(axis) in (2, 3, -1, -2) for axis in axes)
        return "" if spatial else "the axes that are sliced are not known to be spatial"
    if is_op(node, "DepthToSpace"):
        copies = int(np.prod([_blocks(each) for each in (node, *chain)]))
        return "" if copies * found.columns <= found.channels else "the weight would grow more than it saves"
    return _resize_obstacle(node)


def _resize_obstacle(node: ir.Node) -> str:
    """Elements outside of the image are no means of elements, and channels must stay alone."""
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and mode.as_string() == "tf_crop_and_resize":
        return "what lies outside is extrapolated"
    if "axes" in node.attributes or "keep_aspect_ratio_policy" in node.attributes:
        return "which axes it resizes, and how, is written otherwise"
    scales, sizes = constant_of(input_of(node, 2)), constant_of(input_of(node, 3))
    if scales is not None and scales.size == _AXES:
        grows = scales[0] == scales[1] == 1 and (scales[2:] >= 1).all()
        return "" if grows else "it does not enlarge the spatial axes alone"
    if sizes is None or sizes.size != _AXES:
        return "its sizes are computed"
    given = node.inputs[0].shape if node.inputs[0] is not None else None
    if given is None or any(not isinstance(dim, int) for dim in given):
        return "the sizes that it starts from are not known"
    known = [dim for dim in given if isinstance(dim, int)]
    alone = list(sizes[:2]) == known[:2] and all(
        new >= old for new, old in zip(sizes[2:], known[2:], strict=True)
    )
    return "" if alone else "it does not enlarge the spatial axes alone"


def _blocks(node: ir.Node) -> int:
    """How many channels of the input make one of the output."""
    return attribute(node, "blocksize", 1) ** 2 if is_op(node, "DepthToSpace") else 1


def _is_depth_first(node: ir.Node) -> bool:
    """Whether DepthToSpace finds the blocks of one channel far apart (DCR, the default)."""
    mode = node.attributes.get("mode")
    return mode is None or mode.as_string() == "DCR"


def _spread(weight: np.ndarray, node: ir.Node) -> np.ndarray:
    """The weight [N, C] of a convolution behind `node` as one in front of it."""
    copies = np.eye(_blocks(node), dtype=weight.dtype)
    return np.kron(copies, weight) if _is_depth_first(node) else np.kron(weight, copies)


def _repeated(bias: np.ndarray, node: ir.Node) -> np.ndarray:
    copies = np.ones(_blocks(node), bias.dtype)
    return np.kron(copies, bias) if _is_depth_first(node) else np.kron(bias, copies)


def _again(node: ir.Node, value: ir.Value, convolution: Convolution, edit: Edit) -> ir.Value:
    """`node` applied to `value`, whose channels are the convolution's."""
    inputs = [value, *node.inputs[1:]]
    sizes = constant_of(input_of(node, 3)) if is_op(node, "Resize") else None
    near = convolution.node
    if sizes is not None and constant_shape(input_of(node, 3)):
        changed = np.array(sizes, np.int64)
        changed[_CHANNEL] = convolution.columns
        inputs[3] = edit.constant(changed, f"{label_of(node)}_sizes", near=near)
    names = [f"{label_of(convolution.node)}_{node.op_type}"]
    (made,) = edit.insert(node.op_type, inputs, dict(node.attributes), before=near, names=names)
    _describe(made, node.outputs[0], None)
    if made.shape is not None:
        channels = value.shape[_CHANNEL] if value.shape is not None else None
        shrunk = channels // _blocks(node) if isinstance(channels, int) else None
        made.shape = ir.Shape([made.shape[0], shrunk, *made.shape[2:]])
    return made


def _describe(value: ir.Value, like: ir.Value, channels: int | None) -> None:
    """Type and shape of `like`, with other channels."""
    value.type = like.type
    if like.shape is not None and len(like.shape) == _AXES:
        value.shape = ir.Shape([like.shape[0], channels, *like.shape[2:]])
