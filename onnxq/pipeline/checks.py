"""What every pass must leave alone, whatever it promises: a valid graph and the interface of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import AnyPass
from onnxq.pipeline.structure import skeleton_of


@dataclass(frozen=True)
class Port:
    """An input or output as a caller sees it.

    Attributes:
        name: Name of the value.
        kind: Type and element type, e.g. ``"Tensor(FLOAT)"``; None if the model does not say.
        shape: A number, a symbol or None (unknown) for each axis; None if the model does not say.
        optional: An input that has a default, so that a caller may leave it out.
    """

    name: str
    kind: str | None
    shape: tuple[int | str | None, ...] | None
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """What callers of a model rely on."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str]
    opsets: Mapping[str, int]


def signature_of(model: ir.Model) -> Signature:
    """Inputs and outputs in order, metadata, and operator sets of `model`."""
    return Signature(
        inputs=tuple(_port(value, value.is_initializer()) for value in model.graph.inputs),
        outputs=tuple(_port(value, False) for value in model.graph.outputs),
        metadata=dict(model.metadata_props),
        opsets=dict(model.opset_imports),
    )


def broken_promise(before: ir.Model, after: ir.Model, a_pass: AnyPass) -> str:
    """What `a_pass` broke on the way from `before` to `after`, apart from numbers; "" if nothing.

    A type or dimension that the model left open may be filled in; what it says may not change. Metadata and
    operator domains may be added. A model that the ONNX checker refused before is not held against the pass.
    """
    old, new = signature_of(before), signature_of(after)
    return (
        _changed_ports("input", old.inputs, new.inputs)
        or _changed_ports("output", old.outputs, new.outputs)
        or _changed_metadata(old.metadata, new.metadata)
        or _changed_opsets(old.opsets, new.opsets, raising=a_pass.raises_opset)
        or _new_complaint(before, after)
    )


def checker_complaint(model: ir.Model) -> str:
    """What the ONNX checker says against `model`, whose weights it need not see; "" if nothing."""
    import onnx

    try:
        proto = skeleton_of(model)
        onnx.checker.check_model(proto)
    except Exception as error:  # serialisation and the checker raise their own unrelated classes
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return ""


def _port(value: ir.Value, optional: bool) -> Port:
    shape = None
    if value.shape is not None:
        shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return Port(str(value.name), str(value.type) if value.type is not None else None, shape, optional)


def _changed_ports(side: str, before: tuple[Port, ...], after: tuple[Port, ...]) -> str:
    names, new_names = [port.name for port in before], [port.name for port in after]
    if names != new_names:
        return f"{side}s were {', '.join(names)}; now {', '.join(new_names)}"
    for old, new in zip(before, after, strict=True):
        if old.kind is not None and old.kind != new.kind:
            return f"{side} {old.name!r} was of type {old.kind}; now {new.kind}"
        if old.optional != new.optional:
            return f"{side} {old.name!r} {'lost' if old.optional else 'gained'} its default"
        if not _shape_stands(old.shape, new.shape):
            return f"{side} {old.name!r} was of shape {old.shape}; now {new.shape}"
    return ""


def _shape_stands(old: tuple[int | str | None, ...] | None, new: tuple[int | str | None, ...] | None) -> bool:
    if old is None:
        return True
    if new is None or len(old) != len(new):
        return False
    return all(dim is None or dim == other for dim, other in zip(old, new, strict=True))


def _changed_metadata(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    lost = [key for key, value in before.items() if after.get(key) != value]
    return f"metadata {', '.join(map(repr, lost))} changed or went" if lost else ""


def _changed_opsets(before: Mapping[str, int], after: Mapping[str, int], *, raising: bool) -> str:
    for domain, version in before.items():
        now = after.get(domain, version if domain else 0)
        if now < version or (now > version and not raising):
            return f"opset of domain {domain or 'ai.onnx'!r} was {version}; now {now}"
    return ""


def _new_complaint(before: ir.Model, after: ir.Model) -> str:
    complaint = checker_complaint(after)
    if not complaint or checker_complaint(before):
        return ""
    return f"the ONNX checker refuses the result: {complaint}"
