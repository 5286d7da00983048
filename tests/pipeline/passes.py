"""Small passes to try a pipeline with, and a graph for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxq.contract import Contract, ModelPass, Pass, Reject
from onnxq.verify import OracleSettings

HERE = OracleSettings(seeds=1, isolated=False)

NEGATIONS = "g (float[n,4] x) => (float[n,4] y) { a = Neg(x) b = Neg(a) c = Neg(b) d = Neg(c) y = Relu(d) }"

X = np.array([[1, -2, 3, -4]], np.float32)


@dataclass(frozen=True)
class DropDoubleNegation(Pass):
    """Neg(Neg(x)) => x."""

    name: ClassVar[str] = "drop-double-negation"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node, context):
        if node.op_type != "Neg" or node.inputs[0].producer() is None:
            return None
        first = node.inputs[0].producer()
        if first.op_type != "Neg":
            return None
        if node.inputs[0].is_graph_output():
            return Reject("the first negation is an output", "")
        return first, node

    def rewrite(self, found, edit):
        first, second = found
        edit.replace(second.outputs[0], first.inputs[0])
        edit.remove_unused(second)


@dataclass(frozen=True)
class Renaming(Pass):
    """One operator => another; what it promises is up to the test."""

    name: ClassVar[str] = "renaming"
    contract: ClassVar[Contract] = Contract.BITWISE
    old: str = "Relu"
    new: str = "Abs"

    def match(self, node, context):
        return node if node.op_type == self.old else None

    def rewrite(self, found, edit):
        (value,) = edit.insert(self.new, found.inputs, before=found, names=["other"], like=found.outputs[0])
        edit.replace(found.outputs[0], value)
        edit.remove(found)


class Rounding(Renaming):
    name: ClassVar[str] = "rounding"
    contract: ClassVar[Contract] = Contract.LOSSY


class Transforming(ModelPass):
    """Whatever the test says."""

    name: ClassVar[str] = "transforming"
    contract: ClassVar[Contract] = Contract.BITWISE

    def __init__(self, change):
        self.change = change

    def transform(self, model):
        return self.change(model) or model
