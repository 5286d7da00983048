"""Small models that show what an operator costs: chains of it, timed at two lengths.

The longer chain's time less the shorter one's, for each link, is free of what opening a run costs. Each link
has weights of its own, as the layers of a model have.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxq.runtime import SessionSettings, open_session

MICROSOFT = "com.microsoft"
SHORT, LONG = 1, 5
"""Links of the two chains."""
_RUNS, _COLD_RUNS = 30, 12
_CACHES = 64 * 2**20
"""Bytes that leave nothing else in the caches of a core, or little."""
_FINE = 1e-5
"""Seconds; a coarser clock of threads tells nothing of a run."""
Link = Callable[["Chain", ir.Value], ir.Value]


class Chain:
    """A model in the making, whose links follow one another."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[ir.Node] = []
        self._weights: list[ir.Value] = []

    def constant(self, array: np.ndarray) -> ir.Value:
        """A new initializer."""
        name = f"w{len(self._weights)}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self._weights.append(value)
        return value

    def floats(self, *shape: int) -> ir.Value:
        """Random numbers of the size that keeps a product's output at its input's."""
        scale = 1 / np.sqrt(shape[0])
        return self.constant((scale * self._random.standard_normal(shape)).astype(np.float32))

    def codes(self, *shape: int, low: int, high: int, dtype: type) -> ir.Value:
        """Random integers from `low` to `high`."""
        return self.constant(self._random.integers(low, high + 1, shape).astype(dtype))

    def add(
        self, op_type: str, inputs: list[ir.Value | None], domain: str = "", **attributes: int | list[int]
    ) -> ir.Value:
        """A new node; gives its output."""
        given = ir.convenience.convert_attributes(attributes)
        node = ir.Node(domain, op_type, inputs, given, name=f"n{len(self._nodes)}")
        node.outputs[0].name = f"v{len(self._nodes)}"
        self._nodes.append(node)
        return node.outputs[0]

    def model(self, source: ir.Value, output: ir.Value) -> ir.Model:
        """The whole of it."""
        output.dtype, output.shape = ir.DataType.FLOAT, ir.Shape([None, None])
        graph = ir.Graph(
            [source],
            [output],
            nodes=self._nodes,
            initializers=self._weights,
            opset_imports={"": 17, MICROSOFT: 1},
            name="probe",
        )
        return ir.Model(graph, ir_version=8)


def microseconds_a_link(link: Link, rows: int, channels: int, *, cold: bool = False) -> float:
    """Least time that one more link of a chain takes on one thread.

    Args:
        link: Adds a link behind a value [rows, channels] of floats, and gives a value of that shape.
        rows: Tokens.
        channels: Width of the stream.
        cold: Whether each run finds nothing in the processor's caches.
    """
    feeds = {"x": np.random.default_rng(1).standard_normal((rows, channels)).astype(np.float32)}
    least = []
    for length in (SHORT, LONG):  # one session at a time: the threads of two would disturb each other
        chain = Chain()
        source = ir.Value(name="x", shape=ir.Shape([rows, channels]), type=ir.TensorType(ir.DataType.FLOAT))
        value = source
        for _ in range(length):
            value = link(chain, value)
        session = open_session(chain.model(source, value), SessionSettings(threads=1))
        least.append(_least_seconds(lambda session=session: session.run(feeds), cold))  # type: ignore[misc]
    return max(least[1] - least[0], 1e-9) * 1e6 / (LONG - SHORT)


def _least_seconds(run: Callable[[], object], cold: bool) -> float:
    """Seconds that this thread computes: a busy machine that lets it wait does not count."""
    fine = time.get_clock_info("thread_time").resolution < _FINE
    clock = time.thread_time if fine else time.perf_counter
    for _ in range(2):  # the first runs allocate
        run()
    taken, filler = [], np.zeros(_CACHES if cold else 0, np.uint8)
    for _ in range(_COLD_RUNS if cold else _RUNS):
        filler += 1
        start = clock()
        run()
        taken.append(clock() - start)
    return min(taken)


def scaled(chain: Chain, value: ir.Value, channels: int) -> ir.Value:
    """One pass over the stream."""
    return chain.add("Mul", [value, chain.floats(channels)])


def float_product(chain: Chain, value: ir.Value, channels: int) -> ir.Value:
    """A product of floats."""
    return chain.add("MatMul", [value, chain.floats(channels, channels)])


def narrow_product(chain: Chain, value: ir.Value, channels: int, width: int) -> ir.Value:
    """A product into few columns, and one back."""
    few = chain.add("MatMul", [value, chain.floats(channels, width)])
    return chain.add("MatMul", [few, chain.floats(width, channels)])


def integer_product(chain: Chain, value: ir.Value, channels: int) -> ir.Value:
    """QuantizeLinear, and uint8 times int8 into floats."""
    step, zero = chain.constant(np.array(0.03, np.float32)), chain.constant(np.array(128, np.uint8))
    codes = chain.add("QuantizeLinear", [value, step, zero])
    weight = chain.codes(channels, channels, low=-127, high=127, dtype=np.int8)
    steps = chain.constant(np.full(channels, 1 / (73 * np.sqrt(channels)), np.float32))
    none = chain.constant(np.array(0, np.int8))
    return chain.add("MatMulIntegerToFloat", [codes, weight, step, steps, zero, none], MICROSOFT)


def scaled_by_token(chain: Chain, value: ir.Value) -> ir.Value:
    """Each token in steps of a scale of its own, as it is before rounding."""
    highest, lowest = (chain.add(kind, [value], axes=[-1], keepdims=1) for kind in ("ReduceMax", "ReduceMin"))
    least = chain.constant(np.array(1e-6, np.float32))
    reach = chain.add("Max", [highest, chain.add("Neg", [lowest]), least])
    scale = chain.add("Mul", [reach, chain.constant(np.array(1 / 127, np.float32))])
    return chain.add("Mul", [value, chain.add("Reciprocal", [scale])])


def block_product(chain: Chain, value: ir.Value, channels: int, bits: int, block: int) -> ir.Value:
    """A product with weights in blocks, activations rounded by token and block."""
    packed = chain.codes(channels, channels // block, block * bits // 8, low=0, high=255, dtype=np.uint8)
    reach = 0.29 * 2**bits * np.sqrt(channels)
    steps = chain.constant(np.full((channels, channels // block), 1 / reach, np.float32))
    shape = {
        "K": channels,
        "N": channels,
        "bits": bits,
        "block_size": block,
        "accuracy_level": 4,
    }
    return chain.add("MatMulNBits", [value, packed, steps], MICROSOFT, **shape)
