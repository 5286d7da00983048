"""Linears in the spellings and shapes that matter to emission, and the same integers computed by numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.contract import Example
from onnxq.statistics import Statistics, TensorStatistics

K, N = 64, 48

BODIES = {
    "product": "y = MatMul(x, w)",
    "sum": "m = MatMul(x, w) y = Add(m, b)",
    "sum turned round": "m = MatMul(x, w) y = Add(b, m)",
    "gemm": "y = Gemm(x, w, b)",
    "gemm with everything": "y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, t, b)",
    "gemm without bias": "y = Gemm(x, w)",
}
SHAPES = {
    "two axes": ("N,64", (6, K)),
    "two fixed axes": ("6,64", (6, K)),
    "three axes": ("B,T,64", (2, 3, K)),
    "three fixed axes": ("2,3,64", (2, 3, K)),
    "one token": ("B,T,64", (1, 1, K)),
    "four axes": ("B,2,T,64", (2, 2, 3, K)),
}
CASES = [
    (body, shape)
    for body in BODIES
    for shape in SHAPES
    if not body.startswith("gemm") or shape.startswith("two")
]


def constants(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    w = (random.normal(size=(K, N)) * random.uniform(0.01, 3, N)).astype(np.float32)
    b = random.normal(size=N).astype(np.float32)
    return {"w": w, "b": b, "t": np.ascontiguousarray(w.T), "v": random.normal(size=(K, N)).astype("f")}


def model_of(body: str, shape: str = "B,T,64", opset: int = 17, **arrays: np.ndarray) -> ir.Model:
    """x [shape] -> y, with those of the constants that the body names."""
    given = {**constants(), **arrays}
    used = {name: array for name, array in given.items() if f"{name})" in body or f"{name}," in body}
    used |= {name: array for name, array in given.items() if f"({name}" in body}
    columns = shape.rpartition(",")[0] + ",48"
    head = f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[{shape}] x) => (float[{columns}] y)'
    model = Example(f"{head} {{ {body} }}", constants=used).model()
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    return model


def activation(size: tuple[int, ...], seed: int = 1) -> np.ndarray:
    """Numbers of a skewed distribution, no two tokens of the same magnitude."""
    random = np.random.default_rng(seed)
    values = random.normal(0.7, 1.0, size) * random.uniform(0.2, 5.0, (*size[:-1], 1))
    return values.astype(np.float32)


def seen(x: np.ndarray, name: str = "x") -> Statistics:
    return Statistics({name: TensorStatistics.of(x.reshape(-1, x.shape[-1]))})


@dataclass(frozen=True)
class Reference:
    """A linear in integers, in numpy and from the definition alone."""

    weight: np.ndarray
    bias: np.ndarray | None
    top: int = 127

    @classmethod
    def of(cls, body: str, top: int = 127) -> Reference:
        arrays = constants()
        alpha, beta = (0.5, 2.0) if "alpha" in body else (1.0, 1.0)
        has_bias = "b)" in body or "(b," in body
        return cls(arrays["w"] * np.float32(alpha), arrays["b"] * np.float32(beta) if has_bias else None, top)

    def weight_codes(self) -> tuple[np.ndarray, np.ndarray]:
        scale = (np.abs(self.weight.astype(np.float64)).max(axis=0) / self.top).astype(np.float32)
        return np.rint(self.weight / scale.astype(np.float64)).astype(np.int64), scale

    def static(self, x: np.ndarray, low: float, high: float) -> np.ndarray:
        """One scale for the tensor, uint8."""
        scale = np.float32((high - low) / 255)
        zero = np.rint(-low / np.float64(scale))
        codes = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64) - int(zero)
        return self._product(codes, np.float64(scale))

    def by_token(self, x: np.ndarray) -> np.ndarray:
        """One symmetric scale for each token."""
        scale = np.abs(x).max(axis=-1, keepdims=True) * np.float32(1 / 127)
        scale = np.maximum(scale, np.float32(1e-30))
        return self._product(np.rint(x / scale).astype(np.int64), scale.astype(np.float64))

    def _product(self, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        weight, column = self.weight_codes()
        product = (codes @ weight) * scale * column.astype(np.float64)
        return product if self.bias is None else product + self.bias
