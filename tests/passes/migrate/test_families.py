"""Scale and shift leave the norms and activations of real exports, and nobody can tell from the outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.ir.walk import nodes
from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.migration import MIGRATED
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.pipeline import apply_pass, broken_promise
from onnxq.statistics import Statistics
from onnxq.verify import Verdict
from tests.families.build import build
from tests.families.spec import Spec
from tests.passes.migrate.families import (
    activation_statistics,
    arrays_of,
    every_spelling,
    family,
    judged,
    linears_of,
    made_by,
    norm_statistics,
    norms_of,
)

RESIDUALS = {"post": 4, "pre": 0, "decoder": 0, "crossed": 3}  # norms that a residual reads too
MIGRATABLE = {"post": 4, "pre": 4, "decoder": 5, "crossed": 4}  # norms that a linear reads
CONTEXTS = {"post": 4, "pre": 4, "decoder": 2, "crossed": 7}  # what no norm gives and no factor can scale
FACTORS = {"post": 0, "pre": 0, "decoder": 2, "crossed": 0}  # gated products
FREE = {
    "post": 2,
    "pre": 2,
    "decoder": 0,
    "crossed": 5,
}  # contexts and ReLUs as torch's newer exporter writes them
TRACED = {"post": 0, "pre": 0, "decoder": 0, "crossed": 2}  # and as tracing does, heads joined to the batch


def exposed(model):
    """The model with the outputs of all norms as outputs of its own, whoever else reads them."""
    for norm in norms_of(model):
        if not norm.output.is_graph_output():
            norm.output.type = ir.TensorType(ir.DataType.from_numpy(norm.dtype))
            model.graph.outputs.append(norm.output)
    return model


def assert_exact(before, result, a_pass):
    assert result.modified
    assert result.settled
    assert broken_promise(before, result.model, a_pass) == ""
    judgement = judged(before, result.model)
    assert judgement.verdict is Verdict.EQUAL, judgement.reason


@every_spelling
def test_gamma_leaves_every_norm_that_a_linear_reads(name, opset, dynamo, precision):
    before, a_pass = family(name, opset, dynamo, precision), FoldGamma(guard=0.75)
    result = apply_pass(before, a_pass)
    assert_exact(before, result, a_pass)
    small = [np.abs(norm.gamma).max() <= 0.7505 for norm in norms_of(result.model)]
    assert small.count(True) == MIGRATABLE[name]
    assert made_by(result.model, a_pass).count("Mul") == RESIDUALS[name]


@every_spelling
def test_shift_and_scale_cost_a_mul_a_residual_and_no_add(name, opset, dynamo, precision):
    before, a_pass = family(name, opset, dynamo, precision), ShiftScale()
    result = apply_pass(before, a_pass, norm_statistics(before))
    assert_exact(before, result, a_pass)
    # The shift of a post-LN residual hides in the bias of the branch beside it.
    inserted = [op_type for op_type in made_by(result.model, a_pass) if op_type != "Constant"]
    assert inserted == ["Mul"] * RESIDUALS[name]
    moved = [norm for norm in norms_of(result.model) if str(norm.output.name).endswith("_migrated")]
    assert len(moved) == MIGRATABLE[name]


@every_spelling
@pytest.mark.parametrize("a_pass", [FoldGamma(guard=0.75), ShiftScale()], ids=lambda each: each.name)
def test_norms_that_are_outputs_too_get_their_numbers_back(name, opset, dynamo, precision, a_pass):
    before = exposed(family(name, opset, dynamo, precision))
    result = apply_pass(before, a_pass, norm_statistics(before))
    assert_exact(before, result, a_pass)
    assert made_by(result.model, a_pass).count("Mul") == MIGRATABLE[name]
    moved = [norm for norm in norms_of(result.model) if str(norm.output.name).endswith(MIGRATED)]
    assert len(moved) == MIGRATABLE[name]


@every_spelling
def test_activations_are_scaled_where_no_norm_can(name, opset, dynamo, precision):
    before, a_pass = family(name, opset, dynamo, precision), InsertScale(gain=0.0, free_gain=0.0)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert_exact(before, result, a_pass)
    scaled = [value for node in nodes(result.model) for value in node.outputs if MIGRATED in str(value.name)]
    assert len(scaled) == CONTEXTS[name] + FACTORS[name]
    inserted = [op_type for op_type in made_by(result.model, a_pass) if op_type != "Constant"]
    most = len(scaled) - FACTORS[name]
    assert set(inserted) <= {"Mul"}
    if precision == "float32":
        assert len(inserted) == most - (FREE[name] if dynamo else TRACED[name])
    else:
        assert len(inserted) <= most


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["post", "pre", "crossed"])
def test_the_values_of_an_attention_take_scale_and_shift(name, seed):
    before, a_pass = family(name, 18, True), InsertScale(gain=0.0, free_gain=0.0, insert_nodes=False)
    result = apply_pass(before, a_pass, activation_statistics(before, seed))
    assert_exact(before, result, a_pass)
    assert made_by(result.model, a_pass) == []
    old, new = ([linear.bias for linear in linears_of(model)] for model in (before, result.model))
    moved = sum(not np.array_equal(*pair) for pair in zip(old, new, strict=True))
    assert moved == {"post": 4, "pre": 4, "crossed": 8}[name], "a ReLU has no bias behind it to change"


def test_values_that_somebody_else_reads_too_take_no_scale():
    """One linear gives queries, keys and values, and what it gives is read whole beside."""
    before = build(Spec("post-encoder", attention="packed", sizes="fixed"))
    for number, linear in enumerate(each for each in linears_of(before) if "qkv" in str(each.node.name)):
        node = ir.node("Tanh", [linear.output], name=f"beside{number}")
        node.outputs[0].name = f"whole{number}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        before.graph.append(node)
        before.graph.outputs.append(node.outputs[0])
    a_pass = InsertScale(gain=0.0, free_gain=0.0)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert_exact(before, result, a_pass)
    assert made_by(result.model, a_pass).count("Mul") == 4, "two contexts, and two Gelus as ever"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("norm", ["script", "operator"])
@pytest.mark.parametrize("activation", ["silu", "gelu", "erf", "contrib-silu"])
def test_one_linear_for_gate_and_factor_takes_the_scale_in_half_of_its_columns(activation, norm, dtype):
    spec = Spec("decoder", 23, attention="packed", activation=activation, norm=norm, dtype=dtype)
    before, a_pass = build(spec), InsertScale(gain=0.0, free_gain=0.0, insert_nodes=False, shift=False)
    statistics = activation_statistics(before)
    downs = [str(each.activation.name) for each in linears_of(before) if "ffn.down" in str(each.node.name)]
    only = Statistics({name: statistics[name] for name in downs})
    result = apply_pass(before, a_pass, only)
    assert_exact(before, result, a_pass)
    assert made_by(result.model, a_pass) == []
    assert len(downs) == 2
    for old, new in zip(linears_of(before), linears_of(result.model), strict=True):
        changed = ~(old.weight == new.weight).all(axis=0)
        if "up_gate" in str(old.node.name):
            assert changed[: old.columns // 2].any()
            assert not changed[old.columns // 2 :].any(), "the gate stays as it is"
        else:
            assert changed.any() == ("ffn.down" in str(old.node.name))


@pytest.mark.parametrize(("opset", "dynamo"), [(14, False), (18, True), (23, True)])
def test_a_gated_feed_forward_hides_its_scale_in_the_factor(opset, dynamo):
    before, a_pass = family("decoder", opset, dynamo), InsertScale(gain=0.0, insert_nodes=False)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert_exact(before, result, a_pass)
    assert made_by(result.model, a_pass) == []
    changed = {linear.node.name for linear in linears_of(result.model)} & {
        change.node for change in result.changes if change.action == "rewire"
    }
    assert len(changed) == 4, "two layers, the factor and the projection behind the product in each"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", RESIDUALS)
def test_any_statistics_keep_the_function(name, seed):
    before, a_pass = family(name, 18, True), ShiftScale()
    result = apply_pass(before, a_pass, norm_statistics(before, seed))
    assert_exact(before, result, a_pass)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_what_is_not_asked_for_stays(shift, scale):
    before, a_pass = family("post", 17, False), ShiftScale(shift=shift, scale=scale)
    result = apply_pass(before, a_pass, norm_statistics(before))
    if not shift and not scale:
        assert not result.modified
        return
    assert_exact(before, result, a_pass)
    assert made_by(result.model, a_pass) == ["Mul"] * (4 if scale else 0)
    old, new = ([norm.beta / norm.gamma for norm in norms_of(model)][:4] for model in (before, result.model))
    same = [np.allclose(*pair, rtol=1e-4, atol=1e-6) for pair in zip(old, new, strict=True)]
    assert same == [not shift] * 4


@pytest.mark.parametrize(("opset", "dynamo"), [(14, False), (23, True)])
def test_other_layers_keep_their_constants(opset, dynamo):
    """With one norm left to migrate, only its own constants and those of its linears may be new."""
    before = family("pre", opset, dynamo)
    norm = norms_of(before)[1]
    statistics = norm_statistics(before)
    only = type(statistics)({str(norm.output.name): statistics[str(norm.output.name)]})
    result = apply_pass(before, ShiftScale(), only)
    assert result.modified
    old, new = arrays_of(before), arrays_of(result.model)
    for name in old.keys() & new.keys():
        np.testing.assert_array_equal(old[name], new[name], err_msg=name)
    (reader,) = [linear for linear in linears_of(before) if linear.activation.name == norm.output.name]
    own = {str(reader.root.name)}
    own |= {str(place[0].inputs[place[1]].name) for place in (norm.gamma_place, norm.beta_place)}
    holder = reader.bias_node or reader.node
    own.add(str(holder.inputs[reader.bias_index].name))
    assert old.keys() - new.keys() == own


def test_without_new_nodes_a_norm_that_a_residual_reads_holds():
    before = family("post", 18, True)
    for a_pass in (FoldGamma(guard=0.75, insert_nodes=False), ShiftScale(insert_nodes=False)):
        result = apply_pass(before, a_pass, norm_statistics(before))
        assert not result.modified
        told = [reject.reason for reject in result.rejects]
        assert sum("nodes may not be inserted" in reason for reason in told) == 4
