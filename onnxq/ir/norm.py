"""Normalisations over the channels: layer norm and RMS norm, as one operator or spelled out.

    layer:  (x - mean(x)) / sqrt(mean((x - mean(x))²) + ε) * γ + β
    rms:    x / sqrt(mean(x²) + ε) * γ

Spelled out, the centre may be computed once or twice, the square be Pow or Mul, the root Sqrt or Pow, the
division Div, Reciprocal and Mul, or a Pow of -0.5, with casts anywhere in between. The scale γ and the
shift β may be absent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit, Reject
from onnxq.ir.append import append
from onnxq.ir.flow import through_casts
from onnxq.ir.linear import put_constant
from onnxq.ir.precision import float_view, is_float, round_once
from onnxq.ir.reduction import Core, find_core
from onnxq.ir.walk import (
    attribute,
    constant_dtype,
    constant_of,
    constant_shape,
    input_of,
    is_op,
    is_overridable,
    last_dim,
    rank_of,
    root_of,
)

_OPERATORS = {"LayerNormalization": "layer", "RMSNormalization": "rms", "SimplifiedLayerNormalization": "rms"}
_FUSED = {
    "SkipLayerNormalization": "the norm has the residual addition inside",
    "SkipSimplifiedLayerNormalization": "the norm has the residual addition inside",
    "EmbedLayerNormalization": "the norm has the embeddings inside",
}

_TAIL = 2  # a γ and a β

Place = tuple[ir.Node, int]
"""A node and which of its inputs."""


@dataclass(frozen=True, eq=False)
class Norm:
    """A layer norm or RMS norm over the last axis.

    Attributes:
        kind: ``"layer"`` or ``"rms"``.
        input: What is normalised, shape [..., C].
        output: The result, with γ and β applied.
        gamma: The scale [C]; ones where the norm has none.
        beta: The shift [C], or None.
        epsilon: What is added to the mean square.
        nodes: The nodes of the norm, the last one giving `output`.
        channels: C.
        dtype: Element type of `output`.
        gamma_place: Where γ is read; None where the norm has none.
        beta_place: Where β is read; None where the norm has none.
    """

    kind: str
    input: ir.Value
    output: ir.Value
    gamma: np.ndarray
    beta: np.ndarray | None
    epsilon: float
    nodes: tuple[ir.Node, ...]
    channels: int
    dtype: np.dtype
    gamma_place: Place | None = None
    beta_place: Place | None = None

    @property
    def is_operator(self) -> bool:
        """Whether the norm itself is one operator (a γ or β behind it notwithstanding)."""
        return self.nodes[0].op_type in _OPERATORS


def find_norm(node: ir.Node) -> Norm | Reject | None:
    """The norm whose last node is `node`.

    Returns:
        A `Norm`; a `Reject` for a norm that is fused with something else, is not over the last axis, or has
        a γ that is no constant; None for anything else, including the inner nodes of a norm.
    """
    if node.domain == "com.microsoft" and node.op_type in _FUSED:
        return Reject(_FUSED[node.op_type], node.name or "")
    found = _norm_at(node, _TAIL)
    if not isinstance(found, Norm):
        return found
    if _continues(found):
        return None
    return found if found.channels else Reject("the number of channels is not known", node.name or "")


def norm_giving(value: ir.Value) -> Norm | None:
    """The norm whose output, γ and β applied, is `value`."""
    node = value.producer()
    found = find_norm(node) if node is not None else None
    return found if isinstance(found, Norm) and found.output is value else None


def rewrite_norm(
    norm: Norm, edit: Edit, gamma: np.ndarray, beta: np.ndarray | None, *, may_add: bool = False
) -> None:
    """Give a norm a new scale and shift, whatever its spelling.

    Constants are new ones, rounded once to the element type they had; whoever else reads the old ones keeps
    them. A γ that was absent appears unless it is all ones. With `beta` None the shift becomes zero. What
    was found before is out of date afterwards.

    Args:
        norm: What `find_norm` found.
        edit: The edit that records the change.
        gamma: [C], any float type.
        beta: [C] or None, any float type.
        may_add: Whether an RMS norm, which has no place for a shift, may get an Add behind it.

    Raises:
        ValueError: Wrong shape, a number that overflows, or a shift for an RMS norm without `may_add`.
    """
    for array in (gamma, beta):
        if array is not None and array.shape != (norm.channels,):
            raise ValueError(f"the norm {norm.output.name!r} has {norm.channels} channels, not {array.shape}")
    if beta is not None and norm.kind == "rms" and norm.beta_place is None and not may_add:
        raise ValueError(f"the RMS norm {norm.output.name!r} has no place for a shift")
    if beta is None and norm.beta_place is not None:
        beta = np.zeros(norm.channels)
    # Everything is rounded before anything is written: an overflow leaves the model as it was.
    new_gamma = round_once(gamma, _dtype_of(norm, norm.gamma_place))
    new_beta = None if beta is None else round_once(beta, _dtype_of(norm, norm.beta_place))
    output = _write_gamma(norm, edit, new_gamma)
    if new_beta is not None:
        _write_beta(norm, edit, new_beta, output)


def _norm_at(node: ir.Node, tail: int) -> Norm | Reject | None:
    """The norm that ends at `node`, with at most `tail` nodes behind its core, even if a γ or β follows."""
    if is_op(node, *_OPERATORS):
        return _operator(node)
    if is_op(node, "Mul", "Div"):
        core = find_core(node)
        if core is not None:
            return _bare(core, node)
    if is_op(node, "Mul", "Add") and tail:
        return _tail(node, tail)
    return None


def _operator(node: ir.Node) -> Norm | Reject | None:
    source, scale, shift = input_of(node, 0), input_of(node, 1), input_of(node, 2)
    if source is None or scale is None:
        return None
    axis, rank = attribute(node, "axis", -1), rank_of(source)
    if axis != -1 and (rank is None or axis != rank - 1):
        return Reject("the norm is not over the last axis alone", node.name or "")
    gamma = _vector(scale)
    if gamma is None:
        return Reject(f"the scale of the norm {_why_no_vector(scale)}", node.name or "")
    if last_dim(source) not in (None, gamma.size):
        return Reject("the scale of the norm is not one number per channel", node.name or "")
    beta = _vector(shift) if shift is not None else None
    if shift is not None and (beta is None or beta.size != gamma.size):
        return Reject(f"the shift of the norm {_why_no_vector(shift)}", node.name or "")
    epsilon = node.attributes.get("epsilon")
    return Norm(
        kind=_OPERATORS[node.op_type],
        input=source,
        output=node.outputs[0],
        gamma=gamma,
        beta=beta,
        epsilon=1e-5 if epsilon is None or epsilon.is_ref() else epsilon.as_float(),
        nodes=(node,),
        channels=gamma.size,
        dtype=constant_dtype(scale),
        gamma_place=(node, 1),
        beta_place=(node, 2) if shift is not None else None,
    )


def _bare(core: Core, node: ir.Node) -> Norm | Reject | None:
    """A spelled-out norm without γ and β; its channels are known from the shape alone."""
    if core.reason:
        return Reject(core.reason, node.name or "")
    channels = last_dim(core.input)
    output = node.outputs[0]
    dtype = output.dtype or core.input.dtype
    return Norm(
        kind=core.kind,
        input=core.input,
        output=output,
        gamma=np.ones(channels or 0, np.float32),
        beta=None,
        epsilon=core.epsilon,
        nodes=core.nodes,
        channels=channels or 0,
        dtype=np.dtype(dtype.numpy()) if dtype is not None else np.dtype(np.float32),
    )


def _tail(node: ir.Node, tail: int = _TAIL) -> Norm | Reject | None:
    """A norm that ends with the multiplication by γ or the addition of β."""
    for index in (0, 1):
        other, vector = input_of(node, 1 - index), input_of(node, index)
        if other is None or vector is None:
            continue
        casts_off = through_casts(other)
        inner = casts_off.producer()
        if inner is None or root_of(vector) is None:
            continue
        base = _norm_at(inner, tail - 1)
        if not isinstance(base, Norm) or base.output is not casts_off:
            continue
        if node.op_type == "Mul" and (base.gamma_place is not None or base.beta_place is not None):
            continue
        if node.op_type == "Add" and base.beta_place is not None:
            continue
        return _extend(base, node, index)
    return None


def _extend(base: Norm, node: ir.Node, index: int) -> Norm | Reject | None:
    """`base` with the γ or β that `node` applies."""
    vector = node.inputs[index]
    array = _vector(vector)
    if is_overridable(vector):
        what = "scale" if node.op_type == "Mul" else "shift"
        return Reject(f"the {what} of the norm {_why_no_vector(vector)}", node.name or "")
    if array is None or (array.size != base.channels if base.channels else array.size == 1):
        return None
    nodes, dtype = (*base.nodes, node), constant_dtype(vector)
    longer = replace(base, output=node.outputs[0], nodes=nodes, channels=array.size, dtype=dtype)
    if node.op_type == "Mul":
        return replace(longer, gamma=array, gamma_place=(node, index))
    gamma = base.gamma if base.channels else np.ones(array.size, np.float32)
    return replace(longer, gamma=gamma, beta=array, beta_place=(node, index))


def _continues(norm: Norm) -> bool:
    """Whether every reader of the output is a γ or β that belongs to the norm, so that it ends further on."""
    pending, readers = [norm.output], 0
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            return False
        for user, _ in value.uses():
            if is_op(user, "Shape", "Size"):
                continue
            if is_op(user, "Cast", "Identity") and through_casts(user.outputs[0]) is not user.outputs[0]:
                pending.append(user.outputs[0])
                continue
            longer = _tail(user) if is_op(user, "Mul", "Add") else None
            if not isinstance(longer, Norm | Reject):
                return False
            readers += 1
    return readers > 0


def _vector(value: ir.Value | None) -> np.ndarray | None:
    """A constant that holds one number per channel and the same for every token, as [C]."""
    shape = constant_shape(value)
    if not shape or any(size != 1 for size in shape[:-1]) or not is_float(constant_dtype(value)):
        return None
    array = constant_of(value)
    return None if array is None else float_view(array).reshape(-1)


def _why_no_vector(value: ir.Value | None) -> str:
    if is_overridable(value):
        return "is a graph input too, so a caller may override it"
    return "is computed" if constant_shape(value) is None else "is not one number per channel"


def _dtype_of(norm: Norm, place: Place | None) -> np.dtype:
    return norm.dtype if place is None else constant_dtype(place[0].inputs[place[1]])


def _write_gamma(norm: Norm, edit: Edit, gamma: np.ndarray) -> ir.Value:
    """Returns the output of the norm, which is another value if a γ was put in at the end."""
    if norm.gamma_place is not None:
        put_constant(edit, *norm.gamma_place, gamma)
    elif (gamma != 1).any():
        core = norm.nodes[-1 if norm.beta_place is None else -2].outputs[0]
        wide = gamma if core.dtype is None else gamma.astype(core.dtype.numpy())
        scaled = append(edit, core, "Mul", wide)
        return scaled if norm.beta_place is None else norm.output
    return norm.output


def _write_beta(norm: Norm, edit: Edit, beta: np.ndarray, output: ir.Value) -> None:
    last = norm.nodes[-1]
    if norm.beta_place is not None:
        put_constant(edit, *norm.beta_place, beta)
    elif is_op(last, "LayerNormalization"):
        edit.rewire(last, 2, edit.constant(beta, f"{output.name}_shift", near=last))
    else:
        append(edit, output, "Add", beta)
