"""Whose error counts for more, and which linears share their bytes with an embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxq.calibration import collect, open_data
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.planning.groups import Weigher, groups_of, is_shared
from onnxq.planning.layers import Plan, plan_layers
from onnxq.planning.reasons import SHARES
from onnxq.statistics import Statistic, Statistics
from tests.graphs import model_of
from tests.planning.one_layer import ALL_FORMS

K, ROWS = 64, 96
DEEP = """
    r = Gather(table, ids)
    a = MatMul(r, w1)
    b = Add(r, a)
    c = MatMul(b, w2)
    d = Add(b, c)
    back = Transpose<perm = [1, 0]>(table)
    y = MatMul(d, back)
"""


def tied(body: str = DEEP, **more: np.ndarray) -> ir.Model:
    random = np.random.default_rng(0)
    arrays = {
        "table": random.normal(size=(ROWS, K)),
        "w1": random.normal(size=(K, K)) / 8,
        "w2": random.normal(size=(K, K)) / 8,
        **more,
    }
    header = f"g (int64[B,8] ids) => (float[B,8,{ROWS}] y)"
    return model_of(f"{header} {{ {body} }}", **{name: a.astype(np.float32) for name, a in arrays.items()})


def seen(model: ir.Model) -> Statistics:
    ids = np.random.default_rng(1).integers(0, K, (24, 8))
    wanted = dict.fromkeys((Statistic.CHANNEL_EXTREMES, Statistic.ROWS), ("r", "b", "d"))
    return collect(model, open_data({"ids": ids}, model), wanted, cache=False)


def linears_of(model: ir.Model) -> list[Linear]:
    return [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]


def planned(model: ir.Model, **given: object) -> Plan:
    return plan_layers(model, seen(model), replace(ALL_FORMS, **given))  # type: ignore[arg-type]


def test_a_head_that_an_embedding_can_read_goes_into_blocks_whatever_that_costs() -> None:
    *_, head = planned(tied(), exchange=1e9).layers
    assert (head.form, head.reason) == ("int8 blocks", SHARES)


def test_a_format_without_blocks_leaves_a_tied_head_its_other_forms() -> None:
    *_, head = planned(tied(), forms=("int8 static", "float")).layers
    assert head.form == "int8 static"
    assert head.reason != SHARES


def test_only_the_linear_of_the_table_is_shared() -> None:
    model = tied()
    assert [is_shared(group) for group in groups_of(linears_of(model), seen(model))] == [False, False, True]
    apart = tied(DEEP.replace("r = Gather(table, ids)", "r = Gather(w1, ids)"))
    assert not is_shared(groups_of(linears_of(apart), seen(apart))[-1])


def test_what_gives_an_output_counts_as_often_as_there_are_branches() -> None:
    model = tied()
    weigher = Weigher.of(model)
    assert weigher.branches == 2
    assert [weigher.weight(group) for group in groups_of(linears_of(model), seen(model))] == [1.0, 1.0, 2.0]


def test_a_model_without_residuals_weighs_all_alike() -> None:
    model = tied("r = Gather(table, ids) back = Transpose<perm = [1, 0]>(table) y = MatMul(r, back)")
    assert Weigher.of(model).branches == 1


def test_plans_of_least_bytes_take_four_bits_until_a_layer_is_hopeless() -> None:
    forms = ("int4 blocks", "int8 blocks", "float")
    one, two, head = planned(tied(), forms=forms, count="bytes", exchange=8.0).layers
    assert (one.form, two.form, head.form) == ("int4 blocks", "int4 blocks", "int8 blocks")
    costs = {each.option: each.cost for each in one.considered}
    assert costs["int4 blocks"] < costs["int8 blocks"] < costs["float"] == 4 * K * K
    closest = planned(tied(), forms=forms, count="bytes", exchange=0.0).layers
    assert {layer.form for layer in closest} == {"float"}


def test_plans_of_least_bytes_decide_readers_of_one_activation_apart() -> None:
    """A weight with a number far from the others in each block loses most of them at 4 bits."""
    wide = np.random.default_rng(1).normal(size=(K, K)) / 8
    wide[0] *= 40
    both = DEEP.replace("a = MatMul(r, w1)", "e = MatMul(r, w3) f = MatMul(r, w1) a = Add(e, f)")
    model = tied(both, w3=wide)
    forms = ("int4 blocks", "int8 blocks", "float")
    layers = planned(model, forms=forms, count="bytes", exchange=5.0).layers
    assert [layer.form for layer in layers] == ["int8 blocks", "int4 blocks", "int4 blocks", "int8 blocks"]
    assert not any(layer.option.scaled for layer in layers)
    together = planned(model, forms=forms, exchange=5.0).layers
    assert together[0].option == together[1].option
