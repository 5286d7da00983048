"""Reading back what ONNX Runtime made of a model, and confirming that each linear got its kernel."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxq.runtime import delivery
from onnxq.runtime.dequantized import dequantize_of, weight_dequantize
from onnxq.runtime.isolate import Worker
from onnxq.runtime.session import open_session
from onnxq.runtime.settings import SessionSettings
from onnxq.runtime.traps import find_slow, find_unfused

KERNELS = frozenset(
    {
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
# A node that is a kernel already may be fused further, with what comes before it.
_BETTER = {"MatMulIntegerToFloat": ("DynamicQuantizeMatMul",)}
_INT8_PRODUCTS = ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul")
_PLAIN = ("ConvInteger", "MatMulInteger")
_WEIGHT_INPUT = {"QLinearMatMul": 3, "QGemm": 3, "QLinearConv": 3}


@dataclass(frozen=True)
class Expected:
    """A quantized product of a model and the kernels it may run in.

    Attributes:
        node: Name of the node.
        kernels: Operators that count as landed.
        output: Name of its output.
        weight: Name of the initializer that holds its weight; empty if there is none.
    """

    node: str
    kernels: tuple[str, ...]
    output: str
    weight: str


@dataclass(frozen=True)
class Landing:
    """Where an expected product ended.

    Attributes:
        node: Name of the node in the model.
        kernels: The operators that were wanted.
        found: The operator in the runtime's graph; empty if no node there could be told to be this one.
        landed: Whether the one is among the others.
        reason: Why it did not land, or why the kernel it landed in is a slow one; empty if all is well.
    """

    node: str
    kernels: tuple[str, ...]
    found: str
    landed: bool
    reason: str


def optimized_graph(
    model: ir.Model | Path | str | bytes,
    settings: SessionSettings | None = None,
    *,
    worker: Worker | None = None,
) -> ir.Model:
    """The graph that the runtime really runs for a model, weights in memory.

    Args:
        model: As for `open_session`; never changed.
        settings: As for `open_session`; its default level is the runtime's own.
        worker: The process that opens it, for a model that nothing is known of; None for this one.

    Raises:
        BackendError: The runtime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        target = Path(folder) / "optimized.onnx"
        settings = dataclasses.replace(settings or SessionSettings(), optimized_to=target)
        large = _size_of(model) >= delivery.LARGEST_MESSAGE
        if large:
            entries = (
                ("session.optimized_model_external_initializers_file_name", "optimized.data"),
                ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
            )
            settings = dataclasses.replace(settings, config=settings.config + entries)
        if worker is None:
            open_session(model, settings)
        else:
            worker.open(model, settings).close()
        return delivery.read(target)


def kernels_of(optimized: ir.Model) -> dict[str, int]:
    """How often each low-precision kernel occurs in a graph, by operator."""
    counts = Counter(node.op_type for node in optimized.graph.all_nodes() if node.op_type in KERNELS)
    return dict(sorted(counts.items()))


def expected_kernels(model: ir.Model) -> list[Expected]:
    """The products of a model that are meant to run in low precision, in graph order.

    A node that is a kernel itself is expected to stay one; a MatMul, Gemm or Conv behind DequantizeLinear of
    a constant weight is expected to become an INT8 product, or MatMulNBits where its activation is float.
    """
    found = []
    for node in model.graph.all_nodes():
        if node.op_type in KERNELS:
            kernels: tuple[str, ...] = (node.op_type, *_BETTER.get(node.op_type, ()))
            found.append(_expect(node, kernels, node.inputs[_WEIGHT_INPUT.get(node.op_type, 1)]))
            continue
        weight = weight_dequantize(node)
        if weight is not None and node.op_type != "Gather":
            found.append(_expect(node, _kernels_for(node), weight.inputs[0]))
    return found


def count_quantized(model: ir.Model) -> int:
    """Products that compute in low precision, or are meant to, by whatever tool and in whatever kernel."""
    plain = sum(node.op_type in _PLAIN for node in model.graph.all_nodes())
    return plain + len(expected_kernels(model))


def confirm_kernels(expected: Iterable[Expected], optimized: ir.Model) -> list[Landing]:
    """Look each expected product up in the runtime's graph.

    Args:
        expected: From `expected_kernels` of the model that was opened.
        optimized: From `optimized_graph` of the same model.

    Returns:
        One landing for each expected product, in the same order.
    """
    nodes = list(optimized.graph.all_nodes())
    reasons = {trap.node: trap.reason for trap in (*find_slow(optimized), *find_unfused(optimized))}
    claimed: set[int] = set()
    return [_land(each, nodes, claimed, reasons) for each in expected]


def _land(wanted: Expected, nodes: list[ir.Node], claimed: set[int], reasons: dict[str, str]) -> Landing:
    node = _find(wanted, [each for each in nodes if id(each) not in claimed])
    if node is None:
        reason = "no node of the optimised graph carries its name, its output or its weight"
        return Landing(wanted.node, wanted.kernels, "", False, reason)
    claimed.add(id(node))
    landed = node.op_type in wanted.kernels
    reason = reasons.get(node.name or "", "")
    if not landed and not reason:
        reason = f"it runs as {node.op_type}"
    return Landing(wanted.node, wanted.kernels, node.op_type, landed, reason)


def _find(wanted: Expected, nodes: list[ir.Node]) -> ir.Node | None:
    """The node of the optimised graph that took over a product.

    Fusions keep the name of the product (some add "/..."). Where it has none, outputs and weights tell.
    """
    if wanted.node:
        for node in nodes:
            if node.name == wanted.node or (node.name or "").startswith(f"{wanted.node}/"):
                return node
    for node in nodes:
        if any(value.name == wanted.output for value in node.outputs):
            return node
    return next((node for node in nodes if wanted.weight and _reads(node, wanted.weight)), None)


def _reads(node: ir.Node, weight: str) -> bool:
    """Whether a product reads an initializer or its copy as repacked by the runtime."""
    for value in node.inputs:
        dequantize = dequantize_of(value)
        source = dequantize.inputs[0] if dequantize is not None else value
        name = (source.name or "") if source is not None else ""
        if name == weight or name in (f"{weight}_T", f"{weight}_s8_2_u8"):
            return node.op_type != "DequantizeLinear"
    return False


def _kernels_for(node: ir.Node) -> tuple[str, ...]:
    if node.op_type == "Conv":
        return ("QLinearConv",)
    activation = dequantize_of(node.inputs[0])
    return _INT8_PRODUCTS if activation is not None else ("MatMulNBits",)


def _expect(node: ir.Node, kernels: tuple[str, ...], weight: ir.Value | None) -> Expected:
    name = weight.name if weight is not None and weight.is_initializer() else None
    return Expected(node.name or "", kernels, node.outputs[0].name or "", name or "")


def _size_of(model: ir.Model | Path | str | bytes) -> int:
    """Bytes of a model's weights, or at least of its file."""
    if isinstance(model, bytes):
        return len(model)
    if isinstance(model, ir.Model):
        return delivery.weight_bytes(model)
    return sum(path.stat().st_size for path in Path(model).parent.glob(f"{Path(model).name}*"))
