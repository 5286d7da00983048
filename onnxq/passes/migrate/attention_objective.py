"""The attention behind a norm as a small model of its own: from queries, keys and values to the context.

    norm -> q, k, v linears -> [ heads, scores, mask, softmax, weighted sum ] -> context

What lies in the brackets is cut out of the graph, whatever its spelling (rotary positions, grouped heads, a
guard against NaN), and evaluated on a few whole samples. Values that cross into it from elsewhere, such as
the mask, come from the same samples. Linears that other tensors feed (the keys of a cross-attention) are
among those values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context
from onnxq.ir.attention import AttentionBlock, find_attention
from onnxq.ir.flow import source_of
from onnxq.ir.linear import Linear
from onnxq.ir.walk import constant_of, root_of
from onnxq.passes.migrate.objectives import Trial

EXAMPLES = 4
"""Samples to evaluate on."""
TOKENS = 384
"""Tokens to evaluate on, as far as whole samples allow."""
LONGEST = 1024
"""Tokens of a sample beyond which the linears alone are judged."""


@dataclass(frozen=True, eq=False)
class AttentionPart:
    """The nodes between the linears that read a tensor and the context of their attention.

    Attributes:
        block: The attention.
        linears: Those of its linears that read the tensor.
        nodes: The nodes, in order; the last one gives the context.
        crossing: Values from elsewhere that the nodes read and that are no constants.
    """

    block: AttentionBlock
    linears: tuple[Linear, ...]
    nodes: tuple[ir.Node, ...]
    crossing: tuple[ir.Value, ...]


def find_parts(linears: Sequence[Linear]) -> list[AttentionPart]:
    """Every attention whose queries, keys or values some of `linears` give, if it can stand alone, in order.

    There are several behind the last norm of an encoder, whose keys and values each layer of a decoder reads.
    """
    graph = linears[0].node.graph if linears else None
    order = list(graph) if graph is not None else []
    own = {linear.node: linear for linear in linears}
    parts = []
    for node in order:
        block = find_attention(node) if node.op_type in ("Softmax", "Attention") else None
        if isinstance(block, AttentionBlock):
            named = dict.fromkeys(each.node for each in (block.query, block.key, block.value))
            given = tuple(own[each] for each in named if each in own)
            parts.append(_cut_out(block, given, order) if given else None)
    return [part for part in parts if part is not None]


class AttentionTerm:
    """The context of an attention, on whole samples."""

    def __init__(self, part: AttentionPart, label: str, context: Context) -> None:
        """Compute the exact context of every sample.

        Raises:
            LookupError: Calibration kept no examples, the attention is too long, or it cannot be evaluated.
        """
        self.part = part
        self.samples = _samples_of(part, label, context)
        self.weights = [linear.weight.astype(np.float32) for linear in part.linears]
        try:
            self.run = _evaluator(part, context)
            found = [self._exact(tokens, feeds) for tokens, feeds in self.samples]
        except Exception as error:  # the reference implementation raises whatever comes
            raise LookupError(f"it cannot be evaluated: {type(error).__name__}: {error}") from error
        self.exact, self.counts = [each[0] for each in found], [each[1] for each in found]
        pairs = zip(self.exact, self.counts, strict=True)
        self.energy = sum(float(np.square(exact * counts, dtype=np.float64).sum()) for exact, counts in pairs)

    def error(self, trial: Trial) -> float:
        """Of the context, over positions that anybody attends to."""
        weights = [trial.weight(weight) for weight in self.weights]
        offsets = [trial.shift @ weight for weight in self.weights]
        error = 0.0
        for (tokens, feeds), exact, counts in zip(self.samples, self.exact, self.counts, strict=True):
            rounded = trial.tensor(tokens)
            products = [rounded @ weight + offset for weight, offset in zip(weights, offsets, strict=True)]
            given = self._context(products, feeds)[0]
            error += float(np.square((given - exact) * counts, dtype=np.float64).sum())
        relative = error / max(self.energy, 1e-30)
        return relative if np.isfinite(relative) else float("inf")

    def _exact(self, tokens: np.ndarray, feeds: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        context, *probabilities = self._context([tokens @ weight for weight in self.weights], feeds)
        block = self.part.block
        if source_of(block.query.activation) is not source_of(block.key.activation):
            return context, np.ones((context.shape[-2], 1), np.float32)  # keys are masked, and not queries
        return context, _attended(context, probabilities)

    def _context(self, products: list[np.ndarray], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        given = dict(feeds)
        for linear, product in zip(self.part.linears, products, strict=True):
            whole = product if linear.bias is None else product + linear.bias
            given[str(linear.output.name)] = whole.astype(linear.dtype)
        with np.errstate(all="ignore"):
            return [np.asarray(array, np.float32) for array in self.run(given)]


def _cut_out(
    block: AttentionBlock, linears: tuple[Linear, ...], order: list[ir.Node]
) -> AttentionPart | None:
    """The nodes that lead from the linears to the context, and what else they read."""
    dependent = {linear.output for linear in linears}
    reached: list[ir.Node] = []
    for node in order:
        if any(value in dependent for value in node.inputs if value is not None):
            reached.append(node)
            dependent.update(node.outputs)
        if node is block.weighted:
            break
    needed, part = {block.context}, []
    for node in reversed(reached):
        if needed.isdisjoint(node.outputs):
            continue
        if node.domain not in ("", "ai.onnx") or any(_holds_graph(each) for each in node.attributes.values()):
            return None
        part.append(node)
        needed.update(value for value in node.inputs if value is not None)
    made = {value for node in part for value in node.outputs} | {linear.output for linear in linears}
    read = dict.fromkeys(value for node in reversed(part) for value in node.inputs if value is not None)
    crossing = tuple(value for value in read if value not in made and root_of(value) is None)
    return AttentionPart(block, linears, tuple(reversed(part)), crossing) if part else None


def _holds_graph(attribute: ir.Attr) -> bool:
    return attribute.is_ref() or attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _evaluator(part: AttentionPart, context: Context) -> Any:
    """A function from feeds to the context and, where there is a Softmax, its probabilities."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    constants = {}
    for value in dict.fromkeys(value for node in part.nodes for value in node.inputs if value is not None):
        array = constant_of(value) if root_of(value) is not None else None
        if array is not None:
            constants[str(value.name)] = array
    fed = [
        *(str(linear.output.name) for linear in part.linears),
        *(str(value.name) for value in part.crossing),
    ]
    outputs = [str(part.block.context.name)]
    if part.block.node is not part.block.weighted:
        outputs.append(str(part.block.node.outputs[0].name))

    def empty(name: str) -> Any:
        return onnx.helper.make_value_info(name, onnx.TypeProto())

    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in part.nodes],
        "attention",
        [empty(name) for name in fed],
        [empty(name) for name in outputs],
        [ir.to_proto(ir.tensor(array, name=name)) for name, array in constants.items()],
    )
    imports = [onnx.helper.make_opsetid("", context.opset)]
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports))
    return lambda feeds: evaluator.run(None, dict(feeds))


def _samples_of(
    part: AttentionPart, label: str, context: Context
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The tensor and everything that crosses in, sample by sample.

    Raises:
        LookupError: Calibration kept no examples of one of them.
    """
    names = [label, *(str(value.name) for value in part.crossing)]
    columns = []
    for name in names:
        seen = context.statistics.get(name)
        if seen is None or seen.examples is None:
            raise LookupError(f"calibration kept no examples of {name!r}")
        columns.append(seen.examples.arrays)
    samples: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    tokens = 0
    for first, *others in zip(*columns, strict=True):
        length = int(np.prod(first.shape[:-1]))
        if len(samples) >= EXAMPLES or (samples and tokens + length > TOKENS):
            break
        if length > LONGEST:
            raise LookupError(f"a sample has {length} tokens")
        tokens += length
        samples.append((first.astype(np.float32), dict(zip(names[1:], others, strict=True))))
    return samples


def _attended(context: np.ndarray, probabilities: Iterable[np.ndarray]) -> np.ndarray:
    """1 for each position (the last axis but one of `context`) that some query attends to, else 0.

    A padded position is masked for everybody. The context at such a position is no data.
    """
    length = context.shape[-2]
    for array in probabilities:
        if array.shape[-1] == array.shape[-2] == length:
            attended: np.ndarray = (np.nan_to_num(array) > 0).reshape(-1, length).any(axis=0)
            counts: np.ndarray = attended.astype(np.float32)[:, None]
            return counts
    return np.ones((length, 1), np.float32)
