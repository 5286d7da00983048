"""Caches, causal masks, rotary positions and repeated heads in exported decoders, and in near misses."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from onnxq.contract import Reject
from onnxq.ir.cache import Cached, find_cached
from onnxq.ir.repeat import Repeated, find_repeated, find_swapped
from onnxq.ir.rotary import Rotary, find_rotary
from onnxq.ir.walk import is_op, nodes
from onnxq.passes.clean import cleaning
from onnxq.pipeline import run
from tests.ir.cached import KEY_HEADS, LAYERS, QUERY_HEADS, SIZE, SPELLINGS, load

exported = pytest.mark.parametrize("spelling", SPELLINGS)


def cleaned(spelling: str) -> ir.Model:
    return run(load(spelling), cleaning(), verify="never").model


def parsed(body: str, inputs: str, outputs: str, constants: str = "") -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) <{constants}> {{ {body} }}'
    return ir.from_proto(onnx.parser.parse_model(text))


def caches(model: ir.Model) -> list[Cached | Reject]:
    return [found for node in nodes(model) for found in find_cached(node)]


@exported
def test_every_past_is_paired_with_its_present(spelling):
    found = caches(load(spelling))
    assert all(isinstance(each, Cached) for each in found)
    assert sorted((each.past.name, each.present.name) for each in found) == sorted(
        (f"past_key_values.{layer}.{side}", f"present.{layer}.{side}")
        for layer in range(LAYERS)
        for side in ("key", "value")
    )
    assert {(each.heads, each.size) for each in found} == {(KEY_HEADS, SIZE)}


@exported
def test_rotary_positions_of_queries_and_keys_are_found(spelling):
    model = cleaned(spelling)
    found = [each for node in nodes(model) if isinstance(each := find_rotary(node), Rotary)]
    assert len(found) == 2 * LAYERS
    assert all(each.angles is found[0].angles for each in found)


@exported
def test_repeated_heads_are_found_behind_both_products(spelling):
    model = cleaned(spelling)
    values = [node.outputs[0] for node in nodes(model) if is_op(node, "Reshape")]
    found = [each for each in map(find_repeated, values) if isinstance(each, Repeated)]
    assert len(found) == 2 * LAYERS
    assert {(each.groups, each.times) for each in found} == {(KEY_HEADS, QUERY_HEADS // KEY_HEADS)}


def test_a_past_that_is_not_handed_on_is_refused():
    model = parsed(
        "c = Concat<axis = 2>(p, n) y = Relu(c)",
        "float[B,2,P,4] p, float[B,2,S,4] n",
        "float[B,2,T,4] y",
    )
    (found,) = caches(model)
    assert isinstance(found, Reject) and "no output" in found.reason


def test_a_past_joined_along_other_axes_is_refused():
    model = parsed("y = Concat<axis = 1>(p, n)", "float[B,2,S,4] p, float[B,2,S,4] n", "float[B,4,S,4] y")
    (found,) = caches(model)
    assert isinstance(found, Reject) and "positions" in found.reason


def test_two_computed_tensors_are_no_cache():
    model = parsed(
        "a = Relu(p) y = Concat<axis = 2>(a, n)", "float[B,2,P,4] p, float[B,2,S,4] n", "float[B,2,T,4] y"
    )
    assert caches(model) == []


def test_a_swap_over_three_axes_needs_known_sizes():
    body = "f = Reshape(k, flat) w = Transpose<perm = [0, 2, 1]>(f) y = Reshape(w, back)"
    constants = "int64[3] flat = {-1, 5, 4}, int64[4] back = {-1, 2, 4, 5}, float[N,5,4] f"
    model = parsed(body, "float[B,2,5,4] k", "float[B,2,4,5] y", constants)
    assert find_swapped(model.graph.outputs[0]) is model.graph.inputs[0]
    other = parsed(body, "float[B,2,T,4] k", "float[B,2,4,L] y", constants)
    assert find_swapped(other.graph.outputs[0]) is None
