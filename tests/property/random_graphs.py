"""Random graphs of the shape that exporters make of transformers.

A value of shape ``[batch, length, channels]`` goes through steps drawn at random, each in one of the
spellings met in the wild, some in a branch or a function; weights are shared, values read from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

DTYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}
Draw = Callable[[st.SearchStrategy], object]


@dataclass
class Sketch:
    """A graph in the making: nodes so far, weights, and the value that the next step goes on from."""

    draw: Draw
    dtype: np.dtype
    channels: int
    current: str = "x"
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    outer: list[str] = field(default_factory=list)
    functions: list[tuple[str, list[NodeProto]]] = field(default_factory=list)
    constants_as_nodes: bool = False
    prefix: str = "v"
    batch: object = None

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Append a node and return the name of its output."""
        output = f"{self.prefix}{len(self.nodes)}_{op_type.lower()}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=f"n_{output}", **attributes))
        return output

    def constant(self, array: np.ndarray, *, shared: bool = True) -> str:
        """A constant: an initializer, perhaps one that is there already, or a node."""
        alike = [
            name
            for name, one in self.weights.items()
            if one.shape == array.shape and one.dtype == array.dtype
        ]
        if shared and alike and self.draw(st.booleans()):
            return str(self.draw(st.sampled_from(alike)))
        if self.constants_as_nodes or self.draw(st.integers(0, 5)) == 0:
            return self.op("Constant", value=numpy_helper.from_array(array))
        name = f"{self.prefix}w{len(self.weights)}"
        self.weights[name] = array
        return name

    def weight(self, *shape: int, around: float = 0.0) -> str:
        seed = self.draw(st.integers(0, 7))
        numbers = np.random.default_rng([seed, *shape]).standard_normal(shape) * 0.5 + around
        return self.constant(numbers.astype(self.dtype))

    def scalar(self, number: float) -> str:
        shape = self.draw(st.sampled_from([(), (1,)]))
        return self.constant(np.full(shape, number, self.dtype), shared=False)

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64), shared=False)

    def flip(self) -> bool:
        return bool(self.draw(st.booleans()))

    def either(self, op_type: str, one: str, other: str) -> str:
        return self.op(op_type, other, one) if self.flip() else self.op(op_type, one, other)


def linear(s: Sketch) -> None:
    spelling = s.draw(st.sampled_from(["plain", "transposed", "identity", "gemm"]))
    c = s.channels
    if spelling == "gemm":
        flat = s.op("Reshape", s.current, s.ints(-1, c))
        transposed = int(s.flip())
        out = s.op("Gemm", flat, s.weight(c, c), s.weight(c), transB=transposed, alpha=0.5)
        shape = s.op("Shape", s.current)
        s.current = s.op("Reshape", out, shape)
        return
    weight = s.weight(c, c)
    if spelling == "transposed":
        weight = s.op("Transpose", weight, perm=[1, 0])
    elif spelling == "identity":
        weight = s.op("Identity", weight)
    s.current = s.op("MatMul", s.current, weight)
    if s.flip():
        s.current = s.either("Add", s.current, s.weight(c))


def layer_norm(s: Sketch) -> None:
    if s.flip():
        inputs = [s.current, s.weight(s.channels, around=1.0)]
        if s.flip():
            inputs.append(s.weight(s.channels))
        s.current = s.op("LayerNormalization", *inputs, axis=-1, epsilon=1e-5)
        return
    mean = s.op("ReduceMean", s.current, s.ints(-1), keepdims=1)
    centred = s.op("Sub", s.current, mean)
    square = s.op("Pow", centred, s.scalar(2.0)) if s.flip() else s.op("Mul", centred, centred)
    variance = s.op("ReduceMean", square, s.ints(-1), keepdims=1)
    deviation = s.op("Sqrt", s.either("Add", variance, s.scalar(1e-5)))
    normed = s.op("Div", centred, deviation)
    scaled = s.either("Mul", normed, s.weight(s.channels, around=1.0))
    s.current = s.either("Add", scaled, s.weight(s.channels))


def rms_norm(s: Sketch) -> None:
    square = s.op("Pow", s.current, s.scalar(2.0)) if s.flip() else s.op("Mul", s.current, s.current)
    mean = s.op("ReduceMean", square, s.ints(-1), keepdims=1)
    root = s.op("Sqrt", s.op("Add", mean, s.scalar(1e-6)))
    normed = (
        s.op("Div", s.current, root) if s.flip() else s.either("Mul", s.current, s.op("Reciprocal", root))
    )
    s.current = s.either("Mul", normed, s.weight(s.channels, around=1.0))


def gelu(s: Sketch) -> None:
    if s.dtype != np.float32:  # the runtime has no Erf of doubles
        return silu(s)
    inner = (
        s.op("Div", s.current, s.scalar(2**0.5)) if s.flip() else s.op("Mul", s.current, s.scalar(0.5**0.5))
    )
    gate = s.op("Add", s.op("Erf", inner), s.scalar(1.0))
    if s.flip():
        s.current = s.op("Mul", s.op("Mul", s.current, gate), s.scalar(0.5))
    else:
        s.current = s.op("Mul", s.op("Mul", s.current, s.scalar(0.5)), gate)


def silu(s: Sketch) -> None:
    s.current = s.either("Mul", s.current, s.op("Sigmoid", s.current))


def residual(s: Sketch) -> None:
    before = s.current
    for _ in range(s.draw(st.integers(1, 3))):
        s.draw(st.sampled_from([linear, layer_norm, silu, gelu]))(s)
    s.current = s.either("Add", before, s.current)


def attention(s: Sketch) -> None:
    query, key, value = (s.op("MatMul", s.current, s.weight(s.channels, s.channels)) for _ in range(3))
    scores = s.op("MatMul", query, s.op("Transpose", key, perm=[0, 2, 1]))
    weights = s.op("Softmax", s.op("Mul", scores, s.scalar(s.channels**-0.5)), axis=-1)
    if s.flip():
        weights = s.op("Where", s.op("IsNaN", weights), s.scalar(0.0), weights)
    s.current = s.op("MatMul", weights, value)


def scale_and_shift(s: Sketch) -> None:
    s.current = s.either("Mul", s.current, s.weight(s.channels, around=1.0))
    if s.flip():
        s.current = s.either("Add", s.current, s.weight(s.channels))


def copy(s: Sketch) -> None:
    s.current = s.op("Identity", s.current)


def picture(s: Sketch) -> None:
    """Tokens as rows of an image, upsampled, convolved back to their number."""
    if s.dtype != np.float32:
        return  # runtimes convolve nothing wider
    image = s.op("Unsqueeze", s.op("Transpose", s.current, perm=[0, 2, 1]), s.ints(3))
    bias = [s.weight(s.channels)] if s.flip() else []
    up = s.op("ConvTranspose", image, s.weight(s.channels, s.channels, 2, 2), *bias, strides=[2, 2])
    if s.flip():
        numbers = [s.weight(s.channels) for _ in range(3)]
        variance = s.constant(np.full(s.channels, 1.5, s.dtype), shared=False)
        up = s.op("BatchNormalization", up, *numbers, variance)
    if s.flip():
        up = s.op("Relu", up)
    down = s.op("Conv", up, s.weight(s.channels, s.channels, 2, 2), strides=[2, 2])
    s.current = s.op("Transpose", s.op("Squeeze", down, s.ints(3)), perm=[0, 2, 1])


def highlights(s: Sketch) -> None:
    """One channel of an image that is enlarged, and shrunk again by taking every second row."""
    if s.dtype != np.float32:
        return
    image = s.op("Unsqueeze", s.op("Transpose", s.current, perm=[0, 2, 1]), s.ints(3))
    scales = s.constant(np.array([1, 1, 2, 1], np.float32), shared=False)
    large = s.op("Resize", image, "", scales, mode="linear")
    one = s.op("Conv", large, s.weight(1, s.channels, 1, 1), s.weight(1))
    small = s.op("MaxPool", one, kernel_shape=[1, 1], strides=[2, 1])
    row = s.op("Transpose", s.op("Squeeze", small, s.ints(3)), perm=[0, 2, 1])
    s.current = s.either("Add", s.current, row)


def layer_scale(s: Sketch) -> None:
    product = s.op("MatMul", s.current, s.weight(s.channels, s.channels))
    s.current = s.either("Mul", product, s.weight(s.channels, around=1.0))


def across(s: Sketch) -> None:
    """A function between two transposes that undo one another."""
    s.current = s.op("Transpose", s.op("Tanh", s.op("Transpose", s.current, perm=[0, 2, 1])), perm=[0, 2, 1])


def codes(s: Sketch) -> None:
    """Rounded, moved, rounded: of the input alone, since what else is computed may differ in its last bit."""
    if s.current != "x" or s.dtype != np.float32:
        return
    grid = (
        s.constant(np.array(0.05, np.float32), shared=False),
        s.constant(np.array(120, np.uint8), shared=False),
    )
    floats = s.op("DequantizeLinear", s.op("QuantizeLinear", s.current, *grid), *grid)
    moved = s.op("Transpose", floats, perm=[0, 2, 1])
    floats = s.op("DequantizeLinear", s.op("QuantizeLinear", moved, *grid), *grid)
    s.current = s.op("Transpose", floats, perm=[0, 2, 1])


def dropout(s: Sketch) -> None:
    s.current = s.op("Dropout", s.current)


def there_and_back(s: Sketch) -> None:
    """To a wider type and back."""
    s.current = s.op("Cast", s.op("Cast", s.current, to=TensorProto.DOUBLE), to=DTYPES[s.dtype])


def reshapes(s: Sketch) -> None:
    back = (s.batch, -1) if isinstance(s.batch, int) else (0, -1)  # a 0 copies the size
    inner = s.op("Reshape", s.current, s.ints(0, -1, 1, s.channels))
    s.current = s.op("Reshape", inner, s.ints(*back, s.channels))


def transposes(s: Sketch) -> None:
    s.current = s.op("Transpose", s.op("Transpose", s.current, perm=[2, 0, 1]), perm=[1, 2, 0])


def squeezes(s: Sketch) -> None:
    s.current = s.op("Squeeze", s.op("Unsqueeze", s.current, s.ints(1)), s.ints(1))


def own_shape(s: Sketch) -> None:
    s.current = s.op("Reshape", s.current, s.op("Shape", s.current))


def computed_constant(s: Sketch) -> None:
    s.current = s.either("Add", s.current, s.op("Add", s.weight(s.channels), s.weight(s.channels)))


def dead_end(s: Sketch) -> None:
    s.op("MatMul", s.current, s.weight(s.channels, s.channels))


def also_an_output(s: Sketch) -> None:
    if s.prefix == "v" and s.nodes and s.current not in s.outer and s.current != "x":
        s.outer.append(s.current)


def branch(s: Sketch) -> None:
    """An If whose branches capture the value and the weights of the graph around them."""
    if _is_cast_input(s):
        s.current = s.op("Tanh", s.current)
    graphs = {}
    for name in ("then_branch", "else_branch"):
        inner = Sketch(
            s.draw,
            s.dtype,
            s.channels,
            s.current,
            weights=s.weights,
            prefix=f"{s.prefix}{len(s.nodes)}{name[0]}_",
        )
        for step in s.draw(st.lists(st.sampled_from(PLAIN), min_size=1, max_size=2)):
            step(inner)
        result = inner.op("Identity", inner.current)
        info = helper.make_tensor_value_info(result, DTYPES[s.dtype], None)
        graphs[name] = helper.make_graph(inner.nodes, name, [], [info])
    s.current = s.op("If", "flag", **graphs)


def _is_cast_input(s: Sketch) -> bool:
    """Whether the value is an input that was only cast, or would be if the steps that compute nothing went.

    ONNX Runtime (1.32, at every level) takes out two casts of a graph input that undo one another, and
    overlooks branches that read the second: such a model opens and then fails with "Missing Input".
    """
    nodes = {node.output[0]: node for node in s.nodes}
    name, has_cast = s.current, False
    while name in nodes and (nodes[name].op_type in FREE or nodes[name].domain):
        has_cast = has_cast or nodes[name].op_type == "Cast" or bool(nodes[name].domain)
        name = nodes[name].input[0]
    return has_cast and name not in nodes


def call(s: Sketch) -> None:
    """A function of the model's own, its constants nodes in its body."""
    name = f"block{len(s.functions)}"
    inner = Sketch(s.draw, s.dtype, s.channels, "a", constants_as_nodes=True, prefix="f")
    for step in s.draw(st.lists(st.sampled_from(PLAIN), min_size=1, max_size=2)):
        step(inner)
    inner.nodes.append(helper.make_node("Identity", [inner.current], ["b"]))
    s.functions.append((name, inner.nodes))
    s.current = s.op(name, s.current, domain="here")


CLUTTER = [copy, dropout, there_and_back, reshapes, transposes, squeezes, own_shape, computed_constant]
FREE = {"Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""The operators of clutter."""
PLAIN = [linear, layer_norm, rms_norm, gelu, silu, scale_and_shift, *CLUTTER]
IMAGES = [picture, highlights, layer_scale, across, codes]
STEPS = [
    *PLAIN,
    *IMAGES,
    linear,
    residual,
    residual,
    attention,
    branch,
    branch,
    call,
    call,
    dead_end,
    also_an_output,
]


@st.composite
def models(draw: Draw, most_steps: int = 7) -> ir.Model:
    """A valid model of opset 18 with input `x`, perhaps token ids instead, and a flag for its branches."""
    dtype = draw(st.sampled_from([np.dtype(np.float32)] * 4 + [np.dtype(np.float64)]))
    batch, length = draw(st.sampled_from([("n", "t"), (1, "t"), (2, 3), ("n", 1), (None, None)]))
    sketch = Sketch(draw, dtype, draw(st.sampled_from([4, 1, 2, 8])), batch=batch)
    inputs = [helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
    if draw(st.integers(0, 3)) == 0:
        inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [batch, length]))
        sketch.current = sketch.op("Gather", sketch.weight(11, sketch.channels), "ids")
    else:
        inputs.append(helper.make_tensor_value_info("x", DTYPES[dtype], [batch, length, sketch.channels]))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=most_steps)):
        step(sketch)
    if sketch.current == "x" or sketch.flip():
        sketch.current = sketch.op("Identity", sketch.current)
    return _finished(sketch, inputs, (batch, length))


def _finished(sketch: Sketch, inputs: list[ValueInfoProto], sizes: tuple[object, object]) -> ir.Model:
    shape = [*sizes, sketch.channels]
    names = list(dict.fromkeys([sketch.current, *sketch.outer]))
    outputs = [helper.make_tensor_value_info(name, DTYPES[sketch.dtype], shape) for name in names]
    weights = [numpy_helper.from_array(array, name) for name, array in sketch.weights.items()]
    overridable = sketch.draw(st.sampled_from([None, *sketch.weights]))
    if overridable is not None and sketch.draw(st.integers(0, 4)) == 0:
        array = sketch.weights[overridable]
        inputs.append(
            helper.make_tensor_value_info(
                overridable, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
        )
    graph = helper.make_graph(sketch.nodes, "random", inputs, outputs, weights)
    imports = [helper.make_opsetid("", 18)]
    functions = [
        helper.make_function("here", name, ["a"], ["b"], nodes, imports) for name, nodes in sketch.functions
    ]
    proto = helper.make_model(
        graph, opset_imports=[*imports, helper.make_opsetid("here", 1)], functions=functions, ir_version=10
    )
    checker.check_model(proto)
    return ir.from_proto(proto)
