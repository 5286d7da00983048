from __future__ import annotations

import pytest

from onnxq.edit import label_of
from onnxq.files import fingerprint
from onnxq.ir.labels import is_named, tell_apart
from onnxq.ir.walk import nodes
from tests.graphs import model_of

CHAIN = "g (float[N] x) => (float[N] y) { a = Abs(x) b = Neg(a) c = Abs(b) y = Neg(c) }"


def test_labels_that_differ_are_left_alone():
    model = model_of(CHAIN)
    assert tell_apart(model) == (model, {})


def test_every_node_but_the_first_of_a_name_gets_another():
    model = model_of(CHAIN)
    for node, name in zip(model.graph, ("one", "one", "one_2", "one"), strict=True):
        node.name = name
    apart, renamed = tell_apart(model)
    assert [node.name for node in apart.graph] == ["one", "one_3", "one_2", "one_4"]
    assert renamed == {"one_3": "one", "one_4": "one"}
    assert [node.name for node in model.graph] == ["one", "one", "one_2", "one"]
    assert fingerprint(apart) == fingerprint(model)


def test_a_name_that_is_the_output_of_a_node_without_one_is_told_apart():
    model = model_of(CHAIN)
    first, *_, last = model.graph
    first.name, last.name = "y", ""
    apart, renamed = tell_apart(model)
    labels = [label_of(node) for node in nodes(apart)]
    assert len(set(labels)) == len(labels)
    assert renamed == {"y_2": "y"}


@pytest.mark.parametrize(
    ("label", "pattern", "named"),
    [
        ("/layers.0/MatMul", "*MatMul", True),
        ("layers[0]", "layers[0]", True),
        ("layers0", "layers[0]", False),
        ("layers[0]/q", "layers[0]*", True),
        ("head", "Head", False),
    ],
)
def test_only_stars_stand_for_something_else(label, pattern, named):
    assert is_named(label, ["other", pattern]) == named
