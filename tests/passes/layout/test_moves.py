"""What is moved, narrowed or left as codes is the same afterwards, element by element."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxq.passes.clean.infer_shapes import InferShapes
from onnxq.passes.layout.cancel_across import CancelAcross
from onnxq.passes.layout.fold_layer_scale import FoldLayerScale
from onnxq.passes.layout.move_codes import MoveCodes
from onnxq.passes.layout.narrow_before_upsampling import NarrowBeforeUpsampling
from onnxq.pipeline import apply_pass, run
from tests.graphs import model_of, ops_of, outputs_of
from tests.passes.layout.test_convolutions import cases

quick = settings(max_examples=60, deadline=None)


def transposed_reshape(sizes: list[int], before: list[int], target: list[int], after: list[int]) -> ir.Model:
    """Transpose, Reshape, Transpose; the first axis of unknown length."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=before),
        helper.make_node("Reshape", ["t", "shape"], ["r"]),
        helper.make_node("Transpose", ["r"], ["u"], perm=after),
        helper.make_node("Neg", ["u"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", *sizes[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(target))],
        [numpy_helper.from_array(np.array(target, np.int64), "shape")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    return run(model, [InferShapes()], verify="never").model


@given(data=st.data())
@quick
def test_a_reshape_between_transposes_is_one_reshape_only_where_it_is(data: st.DataObject) -> None:
    rank = data.draw(st.integers(2, 4))
    sizes = [2, *data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=rank - 1, max_size=rank - 1))]
    before = [0, *data.draw(st.permutations(range(1, rank)))]
    seen = [sizes[axis] for axis in before]
    # Divide one axis in two, or join two neighbours.
    place = data.draw(st.integers(1, rank - 1))
    if data.draw(st.booleans()) and seen[place] % 2 == 0:
        made = [*seen[:place], 2, seen[place] // 2, *seen[place + 1 :]]
    else:
        assume(place + 1 < rank)
        made = [*seen[:place], seen[place] * seen[place + 1], *seen[place + 2 :]]
    after = [0, *data.draw(st.permutations(range(1, len(made))))]
    model = transposed_reshape(sizes, before, [0, *made[1:]], after)
    result = apply_pass(model, CancelAcross())
    x = np.arange(math.prod(sizes), dtype=np.float32).reshape(sizes)
    old, new = outputs_of(model, {"x": x})["y"], outputs_of(result.model, {"x": x})["y"]
    assert old.shape == new.shape
    assert old.tobytes() == new.tobytes()
    assert result.modified == ("Transpose" not in ops_of(result.model))
    if (old == -x.reshape(old.shape)).all() and 1 not in (*sizes, *made):
        assert result.modified, result.rejects


def test_batches_of_any_size_pass_between_tokens_and_images() -> None:
    model = transposed_reshape([2, 30, 8], [0, 2, 1], [-1, 8, 5, 6], [0, 2, 3, 1])
    result = apply_pass(model, CancelAcross())
    assert ops_of(result.model) == ["Reshape", "Neg"]
    for batch in (1, 3, 0):
        x = np.random.default_rng(0).normal(size=(batch, 30, 8)).astype(np.float32)
        np.testing.assert_array_equal(outputs_of(result.model, {"x": x})["y"], -x.reshape(batch, 5, 6, 8))


@pytest.mark.parametrize("block", [2, 3])
def test_depth_to_space_with_channels_last_moves_whole_runs(block: int) -> None:
    columns = 5 * block**2
    model = model_of(
        f"g (float[B,4,3,{columns}] x) => (float[B,H,W,C] y) {{ t = Transpose<perm = [0, 3, 1, 2]>(x) "
        f"d = DepthToSpace<blocksize = {block}>(t) r = Relu(d) y = Transpose<perm = [0, 2, 3, 1]>(r) }}"
    )
    model = run(model, [InferShapes()], verify="never").model
    result = apply_pass(model, CancelAcross())
    assert "DepthToSpace" not in ops_of(result.model)
    (order,) = [
        node.attributes["perm"].as_ints() for node in result.model.graph if node.op_type == "Transpose"
    ]
    assert list(order) == [0, 1, 3, 2, 4]
    x = np.random.default_rng(1).normal(size=(2, 4, 3, columns)).astype(np.float32)
    old, new = outputs_of(model, {"x": x})["y"], outputs_of(result.model, {"x": x})["y"]
    assert old.tobytes() == new.tobytes()


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_every_code_comes_back_from_its_float(kind: str) -> None:
    codes = np.arange(-128, 128, dtype=np.int8) if kind == "int8" else np.arange(256, dtype=np.uint8)
    draw = np.random.default_rng(2)
    for scale, zero in itertools.product(
        [*np.exp(draw.uniform(-60, 60, 12)).astype(np.float32), np.float32(2.0**-126)], draw.choice(codes, 6)
    ):
        text = (
            f"g ({kind}[256] x) => ({kind}[2,128] y) {{ n = Constant<value = int64[2] {{2, 128}}>() "
            "d = DequantizeLinear(x, s, z) r = Reshape(d, n) y = QuantizeLinear(r, s, z) }"
        )
        model = model_of(text, s=np.asarray(scale), z=np.asarray(zero))
        result = apply_pass(model, MoveCodes())
        assert ops_of(result.model) == ["Constant", "Reshape"]
        old, new = outputs_of(model, {"x": codes})["y"], outputs_of(result.model, {"x": codes})["y"]
        assert old.tobytes() == new.tobytes() == codes.tobytes()


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_a_narrow_convolution_passes_two_rearrangements_and_a_crop(mode: str) -> None:
    draw = np.random.default_rng(3)
    text = (
        "g (float[B,64,3,4] x) => (float[B,1,H,W] y) { t = Relu(x) "
        f'd = DepthToSpace<blocksize = 2, mode = "{mode}">(t) c = Slice(d, a, e, axes) '
        f'f = DepthToSpace<blocksize = 2, mode = "{mode}">(c) y = Conv(f, w, b) }}'
    )
    spatial = {
        name: np.array(each, np.int64) for name, each in (("a", [1, 0]), ("e", [-1, -2]), ("axes", [3, 2]))
    }
    weight = draw.normal(size=(1, 4, 1, 1)).astype(np.float32)
    model = model_of(text, **spatial, w=weight, b=np.array([0.7], np.float32))
    result = apply_pass(model, NarrowBeforeUpsampling())
    assert ops_of(result.model) == ["Relu", "Conv", "DepthToSpace", "Slice", "DepthToSpace"]
    x = draw.normal(size=(2, 64, 3, 4)).astype(np.float32)
    old, new = outputs_of(model, {"x": x})["y"], outputs_of(result.model, {"x": x})["y"]
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_resizes_of_the_onnx_package_commute_with_narrow_convolutions() -> None:
    fired = 0
    for name, proto, arrays in cases("Resize"):
        scales = next((each for each in arrays[1:] if each.dtype == np.float32 and each.size == 4), None)
        if arrays[0].ndim != 4 or scales is None:
            continue
        node = proto.graph.node[0]
        given_names = [each.name for each in proto.graph.initializer]
        wide = np.concatenate([arrays[0], -arrays[0], arrays[0] ** 2], axis=1)
        node.input[0], node.output[0] = "t", "u"
        proto.graph.node.insert(0, helper.make_node("Identity", ["x"], ["t"]))
        proto.graph.node.append(helper.make_node("Conv", ["u", "w", "b"], ["y"]))
        weight = np.array([0.3, -0.5, 0.7], np.float32).reshape(1, 3, 1, 1)
        for key, array in (("w", weight), ("b", np.array([0.9], np.float32))):
            proto.graph.initializer.append(numpy_helper.from_array(array, key))
        del proto.graph.input[:], proto.graph.output[:]
        proto.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, wide.shape))
        proto.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4))
        assert given_names
        model = ir.from_proto(proto)
        result = apply_pass(model, NarrowBeforeUpsampling())
        fired += result.modified
        old, new = outputs_of(model, {"x": wide})["y"], outputs_of(result.model, {"x": wide})["y"]
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4, err_msg=name)
    assert fired >= 8


def test_a_layer_scale_goes_into_each_column() -> None:
    draw = np.random.default_rng(4)
    model = model_of(
        "g (float[B,T,6] x, float[B,T,5] z) => (float[B,T,5] y) "
        "{ m = MatMul(x, w) a = Add(b, m) s = Mul(a, c) y = Add(s, z) }",
        w=draw.normal(size=(6, 5)).astype(np.float32),
        b=draw.normal(size=5).astype(np.float32),
        c=np.array([1e-5, -2.0, 0.0, 3.0, 0.1], np.float32),
    )
    result = apply_pass(model, FoldLayerScale())
    assert ops_of(result.model) == ["MatMul", "Add", "Add"]
    feeds = {name: draw.normal(size=(2, 3, n)).astype(np.float32) for name, n in (("x", 6), ("z", 5))}
    old, new = outputs_of(model, feeds)["y"], outputs_of(result.model, feeds)["y"]
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
