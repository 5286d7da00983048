"""A graph in the making: nodes by scope, constants by name, and what goes in and out."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper

from tests.families.spec import Spec

CONTRIB = "com.microsoft"
Numbers = Callable[[np.random.Generator], np.ndarray]


class Writer:
    """Writes nodes one after the other; values are names."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.nodes: list[NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.scope = ""
        self._count: Counter[str] = Counter()
        self._known: dict[str, str] = {}

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Names of what is written begin with that of the part of the model it belongs to."""
        outer = self.scope
        self.scope = f"{outer}.{name}" if outer else name
        yield
        self.scope = outer

    @property
    def batch(self) -> int | str:
        return self.spec.dims.batch if self.spec.sizes == "fixed" else "batch"

    @property
    def length(self) -> int | str:
        return self.spec.dims.length if self.spec.sizes == "fixed" else "length"

    def input(self, name: str, dtype: type, shape: Sequence[int | str]) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """`value` is an output of the model, called `name` from its birth on."""
        for node in self.nodes:
            node.input[:] = [name if each == value else each for each in node.input]
            node.output[:] = [name if each == value else each for each in node.output]
        kind = helper.np_dtype_to_tensor_dtype(self.spec.float_type)
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        """A node with one output, and the output's name."""
        return self.ops(op_type, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, outputs: int, domain: str = "", **attributes: object
    ) -> tuple[str, ...]:
        name = self._unique(f"{self.scope}/{op_type}")
        results = [f"{name}_{index}" for index in range(outputs)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), results, name=name, domain=domain, **attributes)
        )
        return tuple(results)

    def contrib(self, op_type: str, *inputs: str, **attributes: object) -> str:
        return self.op(op_type, *inputs, domain=CONTRIB, **attributes)

    def constant(self, array: np.ndarray, name: str = "constant") -> str:
        """A constant of its own."""
        if self.spec.constants == "nodes":
            return self.op("Constant", value=numpy_helper.from_array(np.asarray(array)))
        name = self._unique(f"{self.scope}.{name}")
        self.arrays[name] = np.asarray(array)
        return name

    def parameter(self, name: str, numbers: Numbers, *, key: str = "") -> str:
        """A constant of the float type that layers may share; `key` is who it is, if not its place."""
        key = key or f"{self.scope}.{name}"
        if self.spec.shared == "layers":
            key = re.sub(r"layers\.\d+", "layers.0", key)
        if key not in self._known:
            random = np.random.default_rng([self.spec.seed, zlib.crc32(key.encode())])
            rounded = numbers(random).astype(np.float16 if self.spec.is_mild else np.float32)
            self._known[key] = self.constant(rounded.astype(self.spec.float_type), name)
        return self._known[key]

    def once(self, key: str, make: Callable[[], str]) -> str:
        """A value that is computed once for all layers."""
        if key not in self._known:
            scope, self.scope = self.scope, "model"
            self._known[key] = make()
            self.scope = scope
        return self._known[key]

    def number(self, number: float) -> str:
        return self.constant(np.array(number, self.spec.float_type), "number")

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64), "ints")

    def integer(self, number: int) -> str:
        return self.constant(np.array(number, np.int64), "integer")

    def reduce_mean(self, x: str) -> str:
        """Over the last axis, which opset 18 made an input."""
        if self.spec.opset >= 18:
            return self.op("ReduceMean", x, self.ints(-1), keepdims=1)
        return self.op("ReduceMean", x, axes=[-1], keepdims=1)

    def passed(self, x: str, op_type: str) -> str:
        """`x`, behind an operator that does nothing if exporters leave such behind."""
        return self.op(op_type, x) if self.spec.clutter == "exporter" else x

    def size(self, x: str, axis: int) -> str:
        """One size of `x`, as a vector of one."""
        picked = self.op("Gather", self.op("Shape", x), self.integer(axis), axis=0)
        return self.op("Unsqueeze", picked, self.ints(0))

    def reshape(self, x: str, *end: int) -> str:
        """`x` [batch, length, ...] with other axes behind the length."""
        if self.spec.sizes == "fixed":
            shape = self.ints(self.spec.dims.batch, -1, *end)
        elif self.spec.sizes == "zeros":
            shape = self.ints(0, 0, *end)
        else:
            shape = self.op("Concat", self.size(x, 0), self.size(x, 1), self.ints(*end), axis=0)
        return self.op("Reshape", x, shape)

    def model(self) -> ir.Model:
        """The model, with types and shapes of inner values where the spec says so."""
        tensors = [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]
        graph = helper.make_graph(self.nodes, "model", self.inputs, self.outputs, tensors)
        domains = sorted({node.domain for node in self.nodes} - {""})
        imports = [
            helper.make_opsetid("", self.spec.opset),
            *(helper.make_opsetid(name, 1) for name in domains),
        ]
        proto = helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="families")
        if self.spec.described:
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        return ir.from_proto(proto)

    def _unique(self, name: str) -> str:
        self._count[name] += 1
        return name if self._count[name] == 1 else f"{name}_{self._count[name]}"
