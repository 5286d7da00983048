"""Dropout(x) at inference => x.

Operator sets 7 to 11 know inference only; from 12 on an input `training_mode` decides, which must be absent
or a constant false that no caller can override. The ratio does not matter. A mask that somebody reads is
refused: what it holds differs between operator sets and runtimes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import constant_of, is_op
from onnxq.passes.clean.evidence import evidence, graph

TRAINING = "training_mode is true: the Dropout drops"
DYNAMIC = "training_mode is decided at run time"
MASK = "the mask of the Dropout is read"
OLD = "before opset 7 a Dropout may be in training mode"


@dataclass(frozen=True)
class DropDropout(Pass):
    """Let the readers of a Dropout that does nothing read its input."""

    name: ClassVar[str] = "drop-dropout"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> ir.Node | Reject | None:
        """The Dropout itself."""
        if not is_op(node, "Dropout") or not node.inputs or node.inputs[0] is None:
            return None
        reason = _why_not(node, context.opset)
        return Reject(reason, label_of(node)) if reason else node

    def rewrite(self, found: ir.Node, edit: Edit) -> None:
        """Replace the output by the input; a graph output keeps an Identity where it needs one."""
        source = found.inputs[0]
        assert source is not None
        edit.replace(found.outputs[0], source)
        edit.remove_unused(found)

    @classmethod
    def examples(cls) -> Examples:
        """Every form of the operator; training, a mask that is read, a mode that a caller sets."""
        return evidence(_FIRES, _HOLDS)


def _why_not(node: ir.Node, opset: int) -> str:
    if opset < 7:
        return OLD
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return MASK
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None:
        return ""
    constant = constant_of(mode)
    if constant is None:
        return DYNAMIC
    return TRAINING if bool(constant.any()) else ""


_FALSE = "m = Constant<value = bool {0}>()"
_TRUE = "m = Constant<value = bool {1}>()"
_RATIO = "r = Constant<value = float {0.1}>()"
_FIRES = (
    graph("a = Relu(x)  b = Dropout<ratio = 0.5>(a)  y = Tanh(b)", opset=7),
    graph("a = Relu(x)  b, mask = Dropout<ratio = 0.5>(a)  y = Tanh(b)", opset=10),
    graph(f"a = Relu(x)  {_RATIO}  b = Dropout(a, r)  y = Tanh(b)", opset=12),
    graph(f"a = Relu(x)  {_RATIO}  {_FALSE}  b, mask = Dropout(a, r, m)  y = Tanh(b)", opset=13),
    graph("a = Relu(x)  y = Dropout(a, , m)", constants="bool m = {0}"),
    graph("a = Dropout(x)  y = Relu(a)"),
    graph("y = Dropout(x)"),
    graph("y = own.f(x)", function=f"f (a) => (b) {{ {_FALSE}  c = Dropout(a, , m)  b = Relu(c) }}"),
)
_HOLDS = (
    (graph(f"{_RATIO}  {_TRUE}  a = Dropout(x, r, m)  y = Relu(a)"), TRAINING),
    (graph("a = Dropout(x, , m)  y = Relu(a)", "float[N,4] x, bool m"), DYNAMIC),
    (graph("a = Dropout(x, , m)  y = Relu(a)", "float[N,4] x, bool m = {0}"), DYNAMIC),
    (graph("y, z = Dropout(x)", outputs="float[N,4] y, bool[N,4] z"), MASK),
    (graph("y = Relu(x)"), ""),
)
