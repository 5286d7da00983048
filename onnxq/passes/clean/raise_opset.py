"""A model of operator set v => the same model of operator set `to` > v.

Newer sets have the operators that other passes need: LayerNormalization (17), Gelu (20), RMSNormalization
(23). Every node of the default domain is taken from version to version, in the main graph, subgraphs and
functions alike: where an operator changed its form or meaning an adapter rewrites it in place, elsewhere the
schema must accept the node as it is. If one node cannot be converted the model stays as it is. Names,
metadata and order of nodes stay.

`onnx.version_converter` is not used: it drops metadata, leaves functions out, and refuses more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from onnxq.contract import Contract, Edit, Examples, ModelPass
from onnxq.errors import UnsupportedModel
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.opset_adapters import ADAPTERS, Unconvertible, complaint

if TYPE_CHECKING:
    import onnx

OLDEST = 7
"""From this version on operators broadcast as they do today."""


@dataclass(frozen=True)
class RaiseOpset(ModelPass):
    """Convert the model to a newer operator set.

    Attributes:
        to: Version of the default operator set that the model shall have at least.
    """

    name: ClassVar[str] = "raise-opset"
    contract: ClassVar[Contract] = Contract.BITWISE
    raises_opset: ClassVar[bool] = True

    to: int = 20

    def transform(self, model: ir.Model) -> ir.Model:
        """`model` itself, converted.

        Raises:
            UnsupportedModel: A node cannot be converted ("opset-conversion"); `model` is then half way.
        """
        from onnx import defs, helper

        if self.to > defs.onnx_opset_version():
            raise _refusal(f"opset {self.to} is newer than the installed onnx knows")
        edit = Edit(model, self.name)
        bodies = [(function.graph, function.opset_imports) for function in model.functions.values()]
        for body, imports in [(model.graph, model.opset_imports), *bodies]:
            version = imports.get("", self.to)
            if version < OLDEST:
                raise _refusal(f"opset {version} is older than {OLDEST}")
            for node in list(body.all_nodes()):
                if node.domain == "":
                    _raise_node(node, version, self.to, edit)
            if version < self.to:
                imports[""] = self.to
                needed = helper.find_min_ir_version_for([helper.make_opsetid("", self.to)])
                model.ir_version = max(model.ir_version, needed)
        return model

    @classmethod
    def examples(cls) -> Examples:
        """Attributes that became inputs, defaults that changed; operators that lost what a node uses."""
        return evidence(_FIRES, _HOLDS)


def _refusal(reason: str) -> UnsupportedModel:
    return UnsupportedModel(
        reason,
        hint="The model keeps its operator set. Export it again with a newer one if a pass needs that.",
        slug="opset-conversion",
    )


def _raise_node(node: ir.Node, version: int, to: int, edit: Edit) -> None:
    for step in range(version + 1, to + 1):
        schema = _schema(node, step)
        if schema.since_version != step:
            continue
        adapter = ADAPTERS.get((node.op_type, step))
        try:
            if adapter is not None:
                adapter(node, edit)
        except Unconvertible as reason:
            raise _refusal(complaint(node, str(reason))) from None
        _check(node, schema, step)


def _schema(node: ir.Node, version: int) -> onnx.defs.OpSchema:
    from onnx import defs

    try:
        return defs.get_schema(node.op_type, version, "")
    except defs.SchemaError:
        raise _refusal(complaint(node, "not an operator of the default domain")) from None


def _check(node: ir.Node, schema: onnx.defs.OpSchema, version: int) -> None:
    """Refuse a node that has what its new schema has not."""
    if schema.deprecated:
        raise _refusal(complaint(node, f"went with opset {version}"))
    unknown = sorted(set(node.attributes) - set(schema.attributes))
    if unknown:
        raise _refusal(complaint(node, f"opset {version} has no attribute {unknown[0]}"))
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        raise _refusal(complaint(node, f"opset {version} wants another number of inputs"))
    if len(node.outputs) > schema.max_output:
        raise _refusal(complaint(node, f"opset {version} has fewer outputs"))


_FIRES = (
    graph("y = ReduceMean<axes = [-1]>(x)", outputs="float[A,B] y", opset=13),
    graph("a, b = Split<axis = 1>(x)  y = Add(a, b)", outputs="float[A,B] y", opset=13),
    graph(
        """a = Squeeze<axes = [0]>(x)  b = Unsqueeze<axes = [0, 2]>(a)  c = ReduceSum<axes = [1]>(b)
           d = Slice<starts = [1], ends = [9], axes = [2]>(c)  y = Softmax<axis = -1>(d)""",
        "float[1,4] x",
        "float[A,B,C] y",
        opset=9,
    ),
    graph(
        "a = Clip<min = -0.5, max = 0.5>(x)  y = Pad<pads = [0, 1, 0, 1], value = 7.0>(a)",
        opset=7,
        constants="float[N,4] a",
        outputs="float[A,B] y",
    ),
    graph(
        "y = own.f(x)",
        function="f (a) => (b) { c = Relu(a)  b = ReduceMean<axes = [1]>(c) }",
        opset=13,
        outputs="float[A,B] y",
    ),
    graph(
        """y = If(c) <then_branch = t () => (float[A,B] p) { p = ReduceMax<axes = [1]>(x) },
                      else_branch = e () => (float[C,D] q) { q = ReduceMin<axes = [1]>(x) }>""",
        "float[N,4] x, bool[1] c",
        "float[E,F] y",
        opset=17,
    ),
)
_HOLDS = (
    (graph("y = Softmax<axis = 1>(x)", "float[2,3,4] x", "float[2,3,4] y", opset=12), "several axes"),
    (
        graph(
            'y = Upsample<mode = "nearest">(x, s)',
            "float[1,1,2,2] x",
            "float[A,B,C,D] y",
            opset=9,
            constants="float[4] s = {1, 1, 2, 2}",
        ),
        "went with opset 10",
    ),
    (graph("y = Add(x, x)", opset=6), "older than 7"),
    (graph("y, m = Dropout(x)", outputs="float[N,4] y, bool[N,4] m", opset=10), "mask is read"),
    (graph("y = Relu(x)", opset=20), ""),
)
