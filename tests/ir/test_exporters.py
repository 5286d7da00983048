"""What torch's exporters write is recognised to the last norm, linear layer and activation.

The TorchScript exporter runs here; what the dynamo exporter wrote is kept in ``exports/``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
import pytest

from onnxq.contract import Edit
from onnxq.ir.activation import find_activation
from onnxq.ir.attention import AttentionBlock, find_attention
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.ir.feedforward import find_feedforward
from onnxq.ir.flow import uses_through
from onnxq.ir.heads import Heads
from onnxq.ir.linear import Linear, find_linear, rewrite_linear
from onnxq.ir.norm import Norm, find_norm, rewrite_norm
from onnxq.ir.residual import find_residual, find_streams
from onnxq.ir.walk import nodes

FOLDER = Path(__file__).parent / "exports"
NAMES = ("post", "pre", "decoder", "crossed")
SCRIPT = [
    (name, opset, False) for name in NAMES for opset in (13, 14, 17) if (name, opset) != ("decoder", 13)
]
FROZEN = [(name, opset, True) for name in NAMES for opset in (18, 23)]

NORMS = {"post": {"layer": 5}, "pre": {"layer": 5}, "decoder": {"rms": 5}, "crossed": {"layer": 5}}
LINEARS = {
    "post": {(16, 16, True): 8, (16, 24, True): 2, (24, 16, True): 2},
    "pre": {(16, 16, True): 8, (16, 24, True): 2, (24, 16, True): 2},
    "decoder": {
        (16, 16, False): 4,
        (16, 8, False): 4,
        (16, 24, False): 4,
        (24, 16, False): 2,
        (16, 30, False): 1,
    },
    "crossed": {(16, 16, True): 12, (16, 24, True): 2, (24, 16, True): 2},
}
ACTIVATIONS = {"post": "gelu-erf", "pre": "gelu-tanh", "decoder": "silu", "crossed": "relu"}
STREAMS = {"post": [(4, 4)], "pre": [(4, 0)], "decoder": [(4, 0)], "crossed": [(2, 1), (3, 2)]}


@cache
def exported(name: str, opset: int, dynamo: bool) -> bytes:
    if dynamo:
        return (FOLDER / f"{name}_{opset}.onnx").read_bytes()
    pytest.importorskip("torch")
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        from exported import export
    finally:
        sys.path.pop(0)
    proto = ir.to_proto(export(name, opset, dynamo=False))
    return onnx.shape_inference.infer_shapes(proto, data_prop=True).SerializeToString()


def load(name: str, opset: int, dynamo: bool) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(exported(name, opset, dynamo)))


def all_found(model: ir.Model, find: Callable[[ir.Node], object], kind: type) -> Iterator:
    for node in nodes(model):
        found = find(node)
        assert found is None or isinstance(found, kind), found
        if found is not None:
            yield found


def feeds(name: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    if name == "crossed":
        shapes = {"source": (2, 7, 16), "target": (2, 5, 16)}
        return {key: random.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    tokens = {"tokens": random.integers(0, 30, (3, 6))}
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]], np.float32)
    return tokens if name == "decoder" else tokens | {"mask": mask}


MOVABLE = {"post": 0, "pre": 4, "decoder": 5, "crossed": 1}  # norms that only linears read

every_export = pytest.mark.parametrize(("name", "opset", "dynamo"), SCRIPT + FROZEN)


@every_export
def test_every_part_is_found_and_no_other(name, opset, dynamo):
    model = load(name, opset, dynamo)
    norms = Counter(norm.kind for norm in all_found(model, find_norm, Norm))
    assert norms == NORMS[name]
    linears = list(all_found(model, find_linear, Linear))
    assert Counter((lin.channels, lin.columns, lin.bias is not None) for lin in linears) == LINEARS[name]
    kinds = [found.kind for node in nodes(model) if (found := find_activation(node)) is not None]
    assert kinds == [ACTIVATIONS[name]] * 2
    assert len(list(all_found(model, find_embedding, Embedding))) == (name != "crossed")


@every_export
def test_residuals_and_streams(name, opset, dynamo):
    model = load(name, opset, dynamo)
    residuals = [found for node in nodes(model) if (found := find_residual(node)) is not None]
    assert len(residuals) == (5 if name == "crossed" else 4)
    assert all(residual.linear is not None and residual.linear.columns == 16 for residual in residuals)
    assert [(len(stream.residuals), len(stream.norms)) for stream in find_streams(model)] == STREAMS[name]


@every_export
def test_attention_blocks(name, opset, dynamo):
    blocks = list(all_found(load(name, opset, dynamo), find_attention, AttentionBlock))
    assert len(blocks) == (3 if name == "crossed" else 2)
    for block in blocks:
        assert block.heads == Heads(4, 2 if name == "decoder" else 4, 4)
        assert block.is_rotary == (name == "decoder") and not block.is_cached
        # The TorchScript exporter computes the scale of torch's own attention at run time.
        assert block.scale == (None if name == "decoder" and not dynamo else pytest.approx(0.5))
        assert len({block.query.node, block.key.node, block.value.node, block.output.node}) == 4
    assert [block.is_cross for block in blocks] == [False, False, True][: len(blocks)]
    assert {len(block.masks) for block in blocks} == {
        0 if name == "crossed" or (name, opset) == ("decoder", 23) else 1
    }


@every_export
def test_feedforward_blocks(name, opset, dynamo):
    model = load(name, opset, dynamo)
    blocks = [found for node in nodes(model) if (found := find_feedforward(node)) is not None]
    assert [(block.up.columns, block.down.channels) for block in blocks] == [(24, 24)] * 2
    assert {block.activation.kind for block in blocks} == {ACTIVATIONS[name]}
    assert {block.gate is not None for block in blocks} == {name == "decoder"}


@every_export
def test_same_numbers_everywhere_leave_the_outputs_alone(name, opset, dynamo, run):
    model, given = load(name, opset, dynamo), feeds(name)
    before = run(model, **given)
    edit = Edit(model, "test")
    for linear in list(all_found(model, find_linear, Linear)):
        rewrite_linear(linear, edit, linear.weight.copy(), linear.bias)
    for norm in list(all_found(model, find_norm, Norm)):
        rewrite_norm(norm, edit, norm.gamma, norm.beta)
    for old, new in zip(before, run(model, **given), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-6)


@every_export
def test_a_scale_may_move_over_all_uses_that_flow_names(name, opset, dynamo, run):
    """If `uses_through` missed a reader, or a linear read the wrong axis, the outputs would differ."""
    model, given = load(name, opset, dynamo), feeds(name)
    before = run(model, **given)
    edit, moved = Edit(model, "test"), 0
    for norm in list(all_found(model, find_norm, Norm)):
        uses = uses_through(norm.output, norm.channels)
        readers = [find_linear(use.node) if use.node is not None and use.index == 0 else None for use in uses]
        linears = [linear for linear in readers if isinstance(linear, Linear)]
        if not linears or len(linears) != len(readers):
            continue
        beta = None if norm.beta is None else norm.beta / norm.gamma
        rewrite_norm(norm, edit, np.ones(norm.channels), beta)
        for linear in linears:
            rewrite_linear(linear, edit, linear.weight * norm.gamma[:, None], linear.bias)
        moved += 1
    assert moved == MOVABLE[name]
    for old, new in zip(before, run(model, **given), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [14, 17, 18, 23])
def test_a_shift_may_move_into_biases_that_were_not_there(opset, run):
    model, given = load("decoder", opset, opset > 17), feeds("decoder")
    before = run(model, **given)
    edit, shift = Edit(model, "test"), np.linspace(-1, 1, 24, dtype=np.float32)
    for node in list(nodes(model)):
        block = find_feedforward(node)
        if block is not None and block.product is not None:
            constant = edit.constant(shift, "shift", near=node)
            (moved,) = edit.insert("Add", [block.product.outputs[0], constant], before=node, names=["moved"])
            edit.rewire(node, 0, moved)
            rewrite_linear(block.down, edit, block.down.weight, -shift @ block.down.weight)
    assert sum(change.action == "rewire" and change.detail == "input 0" for change in edit.changes) >= 2
    for old, new in zip(before, run(model, **given), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("opset", [18, 20, 23])
def test_the_dynamo_exporter_of_today(name, opset):
    exported("crossed", 17, False)
    from exported import export

    model = export(name, opset, dynamo=True)
    assert Counter(norm.kind for norm in all_found(model, find_norm, Norm)).total() == 5
    assert len(list(all_found(model, find_linear, Linear))) == sum(LINEARS[name].values())
    assert sum(find_activation(node) is not None for node in nodes(model)) == 2
