"""Quantized linears in the spellings that matter to ONNX Runtime's fusions, one graph a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import runtime_graphs

K, N = 64, 64


def quantized(weight: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8: the integers, and the scale per tensor (None), per row (0) or per column (1)."""
    scale = np.asarray(np.abs(weight).max(axis=None if axis is None else 1 - axis) / 127, np.float32)
    spread = scale if axis is None else np.expand_dims(scale, 1 - axis)
    return np.round(weight / spread).astype(np.int8), scale


def qdq(
    *,
    shape: str = "b, s, 64",
    columns: int = N,
    activation: str = "uint8",
    copies: int = 1,
    bias: str = "",
    gemm: bool = False,
    zero_point: bool = True,
    weight_only: bool = False,
    axis: int | None = 1,
    per_channel_activation: bool = False,
    reader: str = "",
) -> ir.Model:
    """``Q -> DQ -> MatMul/Gemm <- DQ`` with the given spelling; outputs y0, y1 ...

    Args:
        bias: "", "float" or "int32" (behind DequantizeLinear).
        reader: Of the product: "" for the output, "quantize" for Q -> DQ, "both" for Q -> DQ and Relu.
        axis: Of the weight's scales; None for one scale, equal in all copies.
    """
    rng = np.random.default_rng(7)
    constants: dict[str, Any] = {
        "sx": np.float32(0.02),
        "zx": np.asarray(activation == "uint8" and 128, activation),
    }
    if per_channel_activation:
        constants |= {"sx": np.full(K, 0.02, np.float32), "zx": np.full(K, 128, np.uint8)}
    lines, outputs, source = [], [], "x"
    if not weight_only:
        lines += ["q = QuantizeLinear<axis = -1>(x, sx, zx)", "d = DequantizeLinear<axis = -1>(q, sx, zx)"]
        source = "d"
    for i in range(copies):
        weight, scale = quantized(rng.standard_normal((K, columns)) * rng.uniform(0.5, 2, (K, 1)), axis)
        constants |= {f"w{i}": weight, f"sw{i}": np.float32(0.05) if axis is None else scale}
        if zero_point:
            constants[f"zw{i}"] = np.zeros_like(constants[f"sw{i}"], np.int8)
        dequantize = f"f{i} = DequantizeLinear<axis = {axis or 0}>(w{i}, sw{i}"
        lines.append(dequantize + (f", zw{i})" if zero_point else ")"))
        lines += _product(i, source, gemm, bias, scale, constants, columns)
        lines += _readers(i, reader, constants)
        outputs += [
            f"float[{shape[: shape.rindex(',')]}, {columns}] {name}{i}"
            for name in ("y", "r")[: 1 + (reader == "both")]
        ]
    body = "\n".join(lines)
    return runtime_graphs.model(f"g (float[{shape}] x) => ({', '.join(outputs)}) {{ {body} }}", **constants)


def _product(
    i: int, source: str, gemm: bool, bias: str, scale: np.ndarray, constants: dict[str, Any], columns: int
) -> list[str]:
    lines, operand = [], f"c{i}"
    if bias == "float":
        constants[operand] = np.linspace(-1, 1, columns, dtype=np.float32)
    if bias == "int32":
        constants |= {f"i{i}": np.arange(columns, dtype=np.int32), f"si{i}": scale * np.float32(0.02)}
        constants[f"zi{i}"] = np.zeros(columns, np.int32)
        lines.append(f"{operand} = DequantizeLinear<axis = 0>(i{i}, si{i}, zi{i})")
    if gemm:
        return [*lines, f"[lin{i}] m{i} = Gemm({source}, f{i}{f', {operand}' * bool(bias)})"]
    if not bias:
        return [*lines, f"[lin{i}] m{i} = MatMul({source}, f{i})"]
    return [*lines, f"[lin{i}] p{i} = MatMul({source}, f{i})", f"m{i} = Add(p{i}, {operand})"]


def _readers(i: int, reader: str, constants: dict[str, Any]) -> list[str]:
    if not reader:
        return [f"y{i} = Identity(m{i})"]
    constants |= {"so": np.float32(0.1), "zo": np.uint8(128)}
    lines = [f"qo{i} = QuantizeLinear(m{i}, so, zo)", f"y{i} = DequantizeLinear(qo{i}, so, zo)"]
    return lines + [f"r{i} = Relu(m{i})"] * (reader == "both")


def kernel(*, name: str = "lin0", dynamic: bool = False) -> ir.Model:
    """QuantizeLinear (or DynamicQuantizeLinear) -> MatMulIntegerToFloat with its bias."""
    weight, scale = quantized(np.random.default_rng(7).standard_normal((K, N)), 1)
    constants = {"w": weight, "sw": scale, "zw": np.zeros(N, np.int8), "c": np.ones(N, np.float32)}
    quantize = "q, sx, zx = DynamicQuantizeLinear(x)" if dynamic else "q = QuantizeLinear(x, sx, zx)"
    if not dynamic:
        constants |= {"sx": np.float32(0.02), "zx": np.uint8(128)}
    label = f"[{name}] " if name else ""
    text = f"""g (float[b, s, {K}] x) => (float[b, s, {N}] y) {{
        {quantize}
        {label}y = com.microsoft.MatMulIntegerToFloat(q, w, sx, sw, zx, zw, c)
    }}"""
    return runtime_graphs.model(text, **constants)


def embedding(*, quantized_gather: bool) -> ir.Model:
    table, scale = quantized(np.random.default_rng(7).standard_normal((100, K)), None)
    constants = {"w": table, "s": scale, "z": np.int8(0)}
    order = ("g = Gather(w, i)", "y = DequantizeLinear(g, s, z)")
    if not quantized_gather:
        order = ("f = DequantizeLinear(w, s, z)", "[emb] y = Gather(f, i)")
    return runtime_graphs.model(
        f"g (int64[n] i) => (float[n, {K}] y) {{ {order[0]}\n{order[1]} }}", **constants
    )


def between_quantizers(op: str, **constants: Any) -> ir.Model:
    """``Q -> DQ -> op -> Q -> DQ``, an Add or Mul taking a per-channel constant behind DequantizeLinear."""
    constants |= {"sx": np.float32(0.02), "so": np.float32(1 / 256), "z": np.uint8(0)}
    operand = ""
    if op in ("Add", "Mul"):
        constants |= {
            "w": np.arange(K, dtype=np.uint8),
            "sw": np.full(K, 0.1, np.float32),
            "zw": np.zeros(K, np.uint8),
        }
        operand = ", v"
    vector = "v = DequantizeLinear<axis = 0>(w, sw, zw)\n" if operand else ""
    text = f"""g (float[n, {K}] x) => (float[n, {K}] y) {{
        q = QuantizeLinear(x, sx, z)
        d = DequantizeLinear(q, sx, z)
        {vector}[here] m = {op}(d{operand})
        p = QuantizeLinear(m, so, z)
        y = DequantizeLinear(p, so, z)
    }}"""
    return runtime_graphs.model(text, **constants)


def blocks(
    bits: int = 4, block: int = 32, level: int = 4, zero_points: str = "none", groups: bool = False
) -> ir.Model:
    """x [m, K] times a weight in blocks, as MatMulNBits."""
    random = np.random.default_rng(0)
    count = -(-K // block)
    constants = {
        "w": random.integers(0, 256, (N, count, block * bits // 8), np.uint8),
        "scale": random.uniform(0.5, 1.5, (N, count)).astype(np.float32),
    }
    optional = ["", ""]
    if zero_points != "none":
        packed = np.full((N, -(-count * bits // 8)), 0x55, np.uint8)
        floats = np.full((N, count), 2.0 ** (bits - 1), np.float32)
        constants["zero"], optional[0] = (floats if zero_points == "float" else packed), "zero"
    if groups:
        constants["group"], optional[1] = (np.arange(count * block) // block).astype(np.int32), "group"
    options = f"K = {K}, N = {N}, bits = {bits}, block_size = {block}, accuracy_level = {level}"
    inputs = ", ".join(["x", "w", "scale", *optional]).rstrip(", ")
    text = (
        f"g (float[m, {K}] x) => (float[m, {N}] y) {{ y = com.microsoft.MatMulNBits<{options}>({inputs}) }}"
    )
    return runtime_graphs.model(text, **constants)
