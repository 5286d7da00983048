"""All readers of a value are found, through everything that provably keeps the channels, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.ir.channels import channels_of, reshape_end
from onnxq.ir.flow import source_of, uses_through

SHAPED = {"inputs": "float[2,5,4] x", "outputs": "y", "shapes": True}


def readers(model: ir.Model, channels: int | None = None) -> list[str]:
    """What reads the output of the Relu that every model here starts with."""
    start = next(node for node in model.graph if node.op_type == "Relu").outputs[0]
    return [use.node.op_type if use.node else f"output {use.index}" for use in uses_through(start, channels)]


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


KEPT = [
    ("c = Identity(h)", {}),
    ("c = Cast<to = 10>(h)", {}),
    ("c = Dropout(h)", {}),
    ("c, mask = Dropout(h, r, f)", {"r": np.float32(0.5), "f": np.array(False)}),
    ("c = Reshape(h, s)", {"s": ints(-1, 4)}),
    ("c = Reshape(h, s)", {"s": ints(0, 0, 0)}),
    ("c = Reshape(h, s)", {"s": ints(5, 1, 2, 4)}),
    ("n = Shape<end = 1>(x) s = Concat<axis = 0>(n, k) c = Reshape(h, s)", {"k": ints(5, 4)}),
    ("c = Flatten<axis = 2>(h)", {}),
    ("c = Flatten<axis = -1>(h)", {}),
    ("c = Unsqueeze(h, a)", {"a": ints(0)}),
    ("c = Unsqueeze(h, a)", {"a": ints(-2)}),
    ("c = Unsqueeze(h, a)", {"a": ints(2)}),
    ("u = Unsqueeze(h, a) c = Squeeze(u, a)", {"a": ints(-3)}),
    ("c = Transpose<perm = [1, 0, 2]>(h)", {}),
    ("c = Slice(h, i, j, a)", {"i": ints(0), "j": ints(1), "a": ints(1)}),
    ("c = Slice(h, i, j)", {"i": ints(0, 0), "j": ints(1, 1)}),
    ("c = Gather<axis = 1>(h, i)", {"i": np.array(0)}),
    ("c = Gather<axis = -2>(h, i)", {"i": ints(0, 1)}),
    ("c, d = Split<axis = 0>(h, i) z = Sigmoid(d)", {"i": ints(1, 1)}),
    ("c = Expand(h, s)", {"s": ints(3, 2, 5, 4)}),
]

STOPPED = [
    ("c = Cast<to = 7>(h)", {}),
    ("c, mask = Dropout(h, r, f)", {"r": np.float32(0.5), "f": np.array(True)}),
    ("c = Reshape(h, s)", {"s": ints(2, 5, 2, 2)}),
    ("c = Reshape(h, s)", {"s": ints(10, -1, 2)}),
    ("c = Reshape(h, s)", {"s": ints(4, 10)}),
    ("s = Shape(h) c = Reshape(h, s)", {}),
    ("c = Flatten<axis = 1>(h)", {}),
    ("c = Unsqueeze(h, a)", {"a": ints(-1)}),
    ("c = Unsqueeze(h, a)", {"a": ints(3)}),
    ("c = Squeeze(h)", {}),
    ("c = Transpose<perm = [0, 2, 1]>(h)", {}),
    ("c = Transpose(h)", {}),
    ("c = Slice(h, i, j, a)", {"i": ints(0), "j": ints(1), "a": ints(2)}),
    ("c = Slice(h, i, j, a)", {"i": ints(0), "j": ints(1), "a": ints(-1)}),
    ("c = Slice(h, i, j)", {"i": ints(0, 0, 0), "j": ints(1, 1, 1)}),
    ("c = Gather<axis = 2>(h, i)", {"i": ints(0)}),
    ("c = Gather<axis = -1>(h, i)", {"i": ints(0)}),
    ("c, d = Split<axis = -1>(h, i)", {"i": ints(2, 2)}),
]


@pytest.mark.parametrize(("body", "constants"), KEPT)
def test_sees_through_what_keeps_the_channels(body, constants, build):
    model = build(f"h = Relu(x) {body} y = Tanh(c)", **SHAPED, **constants)
    found = set(readers(model, channels=4))
    assert "Tanh" in found and found <= {"Tanh", "Sigmoid"}
    tanh = model.graph.outputs[0].producer()
    assert source_of(tanh.inputs[0]).producer().op_type == "Relu"


@pytest.mark.parametrize(("body", "constants"), STOPPED)
def test_stops_at_what_moves_them(body, constants, build):
    model = build(f"h = Relu(x) {body} y = Tanh(c)", **SHAPED, **constants)
    assert "Tanh" not in readers(model, channels=4)
    assert readers(model, channels=4)


def test_the_path_and_the_place_of_a_use(build):
    model = build("h = Relu(x) i = Identity(h) r = Reshape(i, s) y = Sub(x, r)", s=ints(0, 0, 4))
    (use,) = uses_through(next(iter(model.graph)).outputs[0], channels=4)
    assert (use.node.op_type, use.index, use.value.name) == ("Sub", 1, "r")
    assert [node.op_type for node in use.path] == ["Identity", "Reshape"]


def test_outputs_of_the_model_are_uses(build):
    model = build("h = Relu(x) y = Identity(h)", outputs="float[N,T,4] y, float[N,T,4] h")
    assert readers(model, channels=4) == ["output 1", "output 0"]


def test_readers_inside_subgraphs_count(build):
    model = build(
        "h = Relu(x) k = Identity(h) y = If(c) <then_branch = t () => (float[N,T,4] p) { p = Neg(k) }, "
        "else_branch = e () => (float[N,T,4] q) { q = Identity(h) }>",
        inputs="float[N,T,4] x, bool c",
    )
    found = uses_through(next(iter(model.graph)).outputs[0], channels=4)
    assert sorted(use.node.op_type if use.node else "output" for use in found) == ["Neg", "output"]


def test_reading_the_shape_is_not_reading_the_value(build):
    model = build("h = Relu(x) s = Shape(h) n = Size(h) y = Tanh(h)")
    assert readers(model, channels=4) == ["Tanh"]


def test_being_an_index_is_not_being_data(build):
    model = build("h = Relu(x) i = Cast<to = 7>(h) y = Gather(x, i)")
    assert readers(model, channels=4) == ["Cast"]


def test_channels_come_from_the_shape_if_nobody_knows_better(build):
    model = build("h = Relu(x) r = Reshape(h, s) y = Tanh(r)", inputs="float[N,T,D] x", s=ints(-1, 4))
    relu = next(iter(model.graph)).outputs[0]
    assert readers(model) == ["Reshape"]
    relu.shape = ir.Shape([None, None, 4])
    assert readers(model) == ["Tanh"]


@pytest.mark.parametrize(
    ("body", "constants", "expected"),
    [
        ("h = MatMul(x, w)", {"w": np.ones((4, 6), np.float32)}, 6),
        ("h = Gemm<transB = 1>(x, w)", {"w": np.ones((7, 4), np.float32)}, 7),
        ("p = Neg(x) h = Add(p, b)", {"b": np.ones(5, np.float32)}, 5),
        ("m = MatMul(x, w) p = Mul(m, x) h = Relu(p)", {"w": np.ones((4, 6), np.float32)}, 6),
        (
            "n = Shape<end = 1>(x) s = Concat<axis = 0>(n, k) p = Reshape(x, s) h = Erf(p)",
            {"k": ints(5, 3)},
            3,
        ),
        ("p = Neg(x) h = Add(p, b)", {"b": np.ones(1, np.float32)}, None),
        ("s = Shape(x) h = Reshape(x, s)", {}, None),
        ("h = Reshape(x, s)", {"s": ints(0, 0, -1)}, None),
    ],
)
def test_constants_tell_the_channels_where_shapes_do_not(body, constants, expected, build):
    model = build(body + " y = Tanh(h)", inputs="float[N,T,D] x", outputs="y", **constants)
    assert channels_of(model.graph.outputs[0].producer().inputs[0]) == expected


def test_the_way_back_stops_where_heads_are_merged(build):
    """The last axis of what a Reshape gives says nothing about that of what it reads."""
    model = build(
        "h = Relu(x) r = Reshape(h, s) y = MatMul(r, w)",
        inputs="float[2,5,3,4] x",
        s=ints(2, 5, 12),
        w=np.eye(12, dtype=np.float32),
    )
    merged = model.graph.outputs[0].producer().inputs[0]
    assert source_of(merged) is merged


def test_the_way_back_stops_at_a_table(build):
    model = build(
        "h = Gather(e, x) y = Identity(h)",
        inputs="int64[N] x",
        outputs="float[N,4] y",
        e=np.ones((9, 4), np.float32),
    )
    assert source_of(model.graph.outputs[0]).name == "h"


@pytest.mark.parametrize(
    ("body", "constants", "expected"),
    [
        ("y = Reshape(x, s)", {"s": ints(0, -1, 12, 32)}, (0, None, 12, 32)),
        (
            "n = Shape<end = 2>(x) s = Concat<axis = 0>(n, k) y = Reshape(x, s)",
            {"k": ints(12, 32)},
            (None, 12, 32),
        ),
        ("s = Shape(x) y = Reshape(x, s)", {}, ()),
    ],
)
def test_targets_of_reshapes_are_known_in_part(body, constants, expected, build):
    model = build(body, **constants)
    assert reshape_end(model.graph.outputs[0].producer()) == expected


def test_a_long_chain_is_cut_and_its_end_reported(build):
    body = "h0 = Relu(x) " + "".join(f"h{i + 1} = Identity(h{i}) " for i in range(100)) + "y = Tanh(h100)"
    (use,) = uses_through(next(iter(build(body).graph)).outputs[0])
    assert use.node.op_type == "Identity" and len(use.path) == 64
