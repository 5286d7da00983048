"""Attention cores become the operator, whatever the reshapes between; masked rows stay what they were."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.passes.layout.fold_row_factor import FoldRowFactor
from onnxq.passes.layout.fuse_attention import FuseAttention
from onnxq.passes.layout.raise_for_attention import RaiseForAttention
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
from onnxq.statistics import Statistics, TensorStatistics
from tests.graphs import model_of, ops_of, outputs_of

SHAPES = {
    **dict.fromkeys(("qs", "ct"), "B,S,H,D"),
    **dict.fromkeys(("qt", "c"), "B,H,S,D"),
    **dict.fromkeys(("ks", "vs"), "B,T,H,D"),
    **dict.fromkeys(("s", "a", "p"), "B,H,S,T"),
    "vt": "B,H,T,D",
    "kt": "B,H,D,T",
    "w": "B,1,S,T",
    "y": "B,S,W",
}


def core(layer: str, queries: str, add: str) -> str:
    """The nodes of one attention, from `queries`, k and v to y, every name ending in `layer`."""
    text = (
        f"qs@ = Reshape({queries}, split) qt@ = Transpose<perm = [0, 2, 1, 3]>(qs@) "
        "vs@ = Reshape(v, split) vt@ = Transpose<perm = [0, 2, 1, 3]>(vs@) ks@ = Reshape(k, split) "
        f"kt@ = Transpose<perm = [0, 2, 3, 1]>(ks@) s@ = MatMul(qt@, kt@) {add} p@ = Softmax<axis = -1>(a@) "
        "n@ = IsNaN(p@) g@ = Where(n@, zero, p@) c@ = MatMul(g@, vt@) "
        "ct@ = Transpose<perm = [0, 2, 1, 3]>(c@) y@ = Reshape(ct@, merged)"
    )
    return text.replace("@", layer)


def attention(
    heads: int = 2,
    size: int = 4,
    *,
    mask: str = "float[B,1,1,T] m",
    add: str = "a@ = Add(s@, m)",
    layers: int = 1,
    is_apart: bool = False,
) -> ir.Model:
    """Attentions with the same keys, values and mask: one behind the other, or each of queries of its own.

    Queries of their own are q, q1, q2 ..., and differ in their number; the model returns what each gives.
    """
    width, names = heads * size, [str(number) for number in range(layers)]
    ends = names if is_apart else names[-1:]
    lengths = {layer: f"S{layer}" if is_apart and layer != "0" else "S" for layer in names}
    sizes = {"H": str(heads), "D": str(size), "W": str(width)}
    shapes = [
        f"float[{','.join({**sizes, 'S': lengths[layer]}.get(part, part) for part in shape.split(','))}] "
        f"{name}{layer}"
        for layer in names
        for name, shape in SHAPES.items()
        if name != "y" or layer not in ends
    ]
    constants = (
        f"int64[4] split = {{0, 0, {heads}, {size}}}, int64[3] merged = {{0, 0, {width}}}, "
        f"float zero = {{0.0}}, float low = {{-inf}}, {', '.join(shapes)}"
    )
    before = "q" if is_apart else "y"
    queries = {layer: f"{before}{int(layer) - (not is_apart)}" if int(layer) else "q" for layer in names}
    body = " ".join(core(layer, queries[layer], add) for layer in names)
    read = [layer for layer in names if queries[layer].startswith("q")]
    inputs = ", ".join(
        [f"float[B,{lengths[layer]},{width}] {queries[layer]}" for layer in read]
        + [f"float[B,T,{width}] k, float[B,T,{width}] v, {mask}"]
    )
    results = ", ".join(f"float[B,{lengths[layer]},{width}] y{layer}" for layer in ends)
    return model_of(f"g ({inputs}) => ({results}) <{constants}> {{ {body} }}")


def outputs(model: ir.Model, given_feeds: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = outputs_of(model, given_feeds).values()
    return found


def feeds(batch: int, queries: int, keys: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.normal(size=(batch, length, width)).astype(np.float32)
        for name, length in (("q", queries), ("k", keys), ("v", keys))
    }


def fused(model: ir.Model) -> ir.Model:
    result = apply_pass(apply_pass(model, RaiseForAttention()).model, FuseAttention())
    assert result.modified, result.rejects
    assert "Attention" in ops_of(result.model)
    assert "Softmax" not in ops_of(result.model)
    return result.model


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 3),
    queries=st.integers(1, 7),
    keys=st.integers(1, 9),
    heads=st.integers(1, 4),
    size=st.sampled_from([1, 3, 4, 8]),
    seed=st.integers(0, 1000),
)
def test_random_shapes_and_masks(
    batch: int, queries: int, keys: int, heads: int, size: int, seed: int
) -> None:
    model = attention(heads, size)
    given_feeds = feeds(batch, queries, keys, heads * size, seed)
    hidden = np.random.default_rng(seed).random((batch, 1, 1, keys)) < 0.5
    given_feeds["m"] = np.where(hidden, np.float32(-np.inf), np.float32(0))
    old, new = outputs(model, given_feeds), outputs(fused(model), given_feeds)
    np.testing.assert_allclose(new, old, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", ["B,1,S,T", "1,1,S,T", "S,T", "B,1,1,T", "1,S,T"])
def test_rows_without_a_key_stay_zero_for_masks_of_any_shape(shape: str) -> None:
    model = attention(mask=f"float[{shape}] m")
    sizes = {"B": 2, "S": 3, "T": 5, "1": 1}
    made = feeds(2, 3, 5, 8)
    made["m"] = np.zeros([sizes[name] for name in shape.split(",")], np.float32)
    made["m"][..., 0, :] = -np.inf
    old, new = outputs(model, made), outputs(fused(model), made)
    assert not np.isnan(new).any()
    np.testing.assert_array_equal(new[old == 0], 0)
    assert (old == 0).any()
    np.testing.assert_allclose(new, old, rtol=2e-5, atol=2e-6)


def test_layers_share_one_prepared_mask() -> None:
    model = attention(mask="bool[B,1,S,T] b", add="w@ = Where(b, zero, low) a@ = Add(s@, w@)", layers=3)
    after = fused(model)
    assert ops_of(after).count("Attention") == 3
    assert ops_of(after).count("ReduceMax") == 1
    assert ops_of(after).count("IsNaN") == 0
    made = feeds(2, 3, 3, 8)
    made["b"] = np.random.default_rng(0).random((2, 1, 3, 3)) < 0.4
    np.testing.assert_allclose(outputs(after, made), outputs(model, made), rtol=2e-5, atol=2e-6)


def test_queries_of_another_length_have_a_mask_of_their_own() -> None:
    """As where a decoder's queries read an encoder's keys under the mask of the encoder itself."""
    model = attention(layers=3, is_apart=True)
    made = feeds(2, 3, 5, 8) | {"q1": feeds(2, 4, 5, 8, 1)["q"], "q2": feeds(2, 1, 5, 8, 2)["q"]}
    made["m"] = np.zeros((2, 1, 1, 5), np.float32)
    made["m"][0, ..., 3:] = -np.inf
    old, new = outputs_of(model, made), outputs_of(fused(model), made)
    for name, array in old.items():
        np.testing.assert_allclose(new[name], array, rtol=2e-5, atol=2e-6)


def test_queries_of_one_length_share_an_expanded_mask() -> None:
    assert ops_of(fused(attention(layers=3))).count("Expand") == 1


def test_a_mask_for_each_head_under_a_guard_is_left_alone() -> None:
    raised = attention(mask="float[B,2,S,T] m")
    raised.opset_imports[""] = 23
    result = apply_pass(raised, FuseAttention())
    assert not result.modified
    assert "mask of its own" in result.rejects[0].reason


PLACES = {
    "scores": "s1 = Mul(s0, c)",
    "queries": "q1 = Mul(q0, c)",
    "both": "q1 = Mul(q0, c) k1 = Mul(kt, c)",
}


def grouped(groups: int, times: int, size: int, factor: str, *, is_guarded: bool, often: int = 0) -> ir.Model:
    """An attention whose heads lie apart: of keys and values, behind a past, each is repeated.

    Args:
        groups, times, size: Heads of keys, how often each is repeated, channels of one.
        factor: Where the factor on the scores stands, one of `PLACES`.
        is_guarded: Whether rows without any key become zeros.
        often: How often heads of values are repeated, if not as those of keys.
    """
    heads, kinds = groups * times, {"key": times, "value": often or times}
    widths = {name: groups * (often or times) if name == "value" else heads for name in kinds}
    repeated = " ".join(
        f"{name}_p = Concat<axis = 2>(past_{name}, {name}) {name}_u = Unsqueeze({name}_p, two) "
        f"{name}_e = Expand({name}_u, {name}_often) {name}_r = Reshape({name}_e, {name}_whole)"
        for name in kinds
    )
    written = PLACES[factor]
    query, key = ("q1" if "q1" in written else "q0"), ("k1" if "k1" in written else "kt")
    product = f"s0 = MatMul({query}, {key})" + (f" {written}" if factor == "scores" else "")
    before = "" if factor == "scores" else written
    scores = "s1" if factor == "scores" else "s0"
    guard = "n = IsNaN(c0) c1 = Where(n, zero, c0)" if is_guarded else "c1 = Identity(c0)"
    body = (
        f"q0 = Tanh(q) {repeated} kt = Transpose<perm = [0, 1, 3, 2]>(key_r) {before} {product} "
        f"a = Add({scores}, m) p = Softmax<axis = -1>(a) c0 = MatMul(p, value_r) {guard} "
        "ct = Transpose<perm = [0, 2, 1, 3]>(c1) y = Reshape(ct, merged)"
    )
    numbers = ", ".join(
        f"int64[5] {name}_often = {{1, 1, {count}, 1, 1}}, "
        f"int64[4] {name}_whole = {{0, {widths[name]}, -1, {size}}}, "
        f"float[B,{groups},T,{size}] {name}_p, float[B,{widths[name]},T,{size}] {name}_r"
        for name, count in kinds.items()
    )
    stated = ", ".join(
        [f"float[B,{heads},S,{size}] {name}" for name in ("q0", "q1", "c0", "c1")]
        + [f"float[B,{heads},S,T] {name}" for name in ("s0", "s1", "a", "p")]
        + [f"float[B,{heads},{size},T] {name}" for name in ("kt", "k1")]
        + [f"float[B,S,{heads},{size}] ct"]
    )
    inputs = f"float[B,{heads},S,{size}] q, float[M,1,S,T] m" + "".join(
        f", float[B,{groups},P,{size}] past_{name}, float[B,{groups},N,{size}] {name}" for name in kinds
    )
    constants = (
        f"{numbers}, {stated}, int64[1] two = {{2}}, int64[3] merged = {{0, 0, {heads * size}}}, "
        "float zero = {0.0}, float c = {0.4}"
    )
    results = f"float[B,S,{heads * size}] y, float[B,{groups},T,{size}] key_p"
    return model_of(f"g ({inputs}) => ({results}) <{constants}> {{ {body} }}")


@settings(max_examples=16, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    past=st.integers(0, 5),
    factor=st.sampled_from(list(PLACES)),
    is_guarded=st.booleans(),
    is_shared=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_heads_apart_repeated_and_behind_a_past(
    sizes: tuple[int, int, int, int],
    past: int,
    factor: str,
    is_guarded: bool,
    is_shared: bool,
    seed: int,
) -> None:
    batch, new, groups, times = sizes
    model = grouped(groups, times + 1, 8, factor, is_guarded=is_guarded)
    random = np.random.default_rng(seed)
    made = {
        name: random.normal(size=(batch, groups, length, 8)).astype(np.float32)
        for name, length in (("past_key", past), ("key", new), ("past_value", past), ("value", new))
    }
    made["q"] = 3 * random.normal(size=(batch, groups * (times + 1), new, 8)).astype(np.float32)
    hidden = random.random((1 if is_shared else batch, 1, new, past + new)) < 0.5
    hidden[..., 0] &= is_guarded  # without a guard, a row that sees nothing is NaN
    made["m"] = np.where(hidden, np.float32(-np.inf), np.float32(0))
    after = fused(model)
    assert not {"Expand", "Unsqueeze"} & {
        node.op_type for node in after.graph if not str(node.outputs[0].name).startswith("m_")
    }
    old, new_outputs = outputs_of(model, made), outputs_of(after, made)
    np.testing.assert_array_equal(new_outputs["key_p"], old["key_p"])
    np.testing.assert_allclose(new_outputs["y"], old["y"], rtol=2e-5, atol=2e-5)


def test_heads_of_keys_and_values_must_be_as_many() -> None:
    model = grouped(2, 2, 4, "scores", is_guarded=False, often=3)
    model.opset_imports[""] = 23
    result = apply_pass(model, FuseAttention())
    assert not result.modified
    assert "differ in the number of their heads" in result.rejects[0].reason


def projected(model: ir.Model, width: int) -> ir.Model:
    """A model with a linear layer named "out" behind its only output."""
    (merged,) = model.graph.outputs
    weight = np.random.default_rng(1).normal(size=(width, width)).astype(np.float32)
    value = ir.Value(name="weight", const_value=ir.tensor(weight, name="weight"))
    model.graph.register_initializer(value)
    node = ir.Node("", "MatMul", [merged, value], name="out")
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "o", merged.type, merged.shape
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    return model


def test_the_guard_goes_to_the_scales_of_tokens_bit_for_bit() -> None:
    model = projected(fused(attention()), 8)
    made = feeds(3, 4, 5, 8)
    rows = np.ones((1, 8), np.float32)
    statistics = Statistics({"y0": TensorStatistics.of(rows)})
    rounded = apply_pass(model, QuantizeLinears(per_token=("out",), least=1), statistics).model
    result = apply_pass(rounded, FoldRowFactor())
    assert result.modified, result.rejects
    (core_output,) = (node.outputs[0] for node in result.model.graph if node.op_type == "Attention")
    assert sorted(user.op_type for user, _ in core_output.uses()) == ["Mul", "ReduceMax", "ReduceMin"]
    made["m"] = np.zeros((3, 1, 1, 5), np.float32)
    made["m"][1] = -np.inf
    made["m"][2, ..., 3:] = -np.inf
    old = outputs(rounded, made)
    np.testing.assert_array_equal(outputs(result.model, made), old)
    assert not old[1].any()
    assert old[0].all()


def test_the_opset_stays_where_nothing_can_be_fused() -> None:
    plain = model_of("g (float[N,4] x) => (float[N,4] y) { y = Softmax<axis = -1>(x) }")
    assert not apply_pass(plain, RaiseForAttention()).modified
    refused = apply_pass(attention(mask="float[B,2,S,T] m"), RaiseForAttention())
    assert not refused.modified
    assert "mask of its own" in refused.rejects[0].reason
    raised = apply_pass(attention(), RaiseForAttention())
    assert raised.modified
    assert raised.model.opset_imports[""] == 23
