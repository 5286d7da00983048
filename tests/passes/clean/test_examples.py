"""Every cleaning pass on its own examples."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxq.contract import Contract
from onnxq.passes.clean.cancel_transposes import CancelTransposes
from onnxq.passes.clean.drop_casts import DropCasts
from onnxq.passes.clean.drop_dropout import DropDropout
from onnxq.passes.clean.drop_identity import DropIdentity
from onnxq.passes.clean.drop_unused import DropUnused
from onnxq.passes.clean.fold_constants import FoldConstants
from onnxq.passes.clean.infer_shapes import InferShapes
from onnxq.passes.clean.merge_reshapes import MergeReshapes
from onnxq.passes.clean.raise_opset import RaiseOpset
from onnxq.passes.clean.recompose_gelu import RecomposeGelu
from onnxq.passes.clean.recompose_layer_norm import RecomposeLayerNorm
from onnxq.passes.clean.recompose_rms_norm import RecomposeRMSNorm
from onnxq.passes.clean.share_constants import ShareConstants
from tests.passes.clean.rewriting import assert_close, assert_same_bits, interface, read, rewrite

PASSES = (
    InferShapes,
    DropUnused,
    ShareConstants,
    DropIdentity,
    DropDropout,
    RaiseOpset,
    RecomposeLayerNorm,
    RecomposeRMSNorm,
    RecomposeGelu,
    DropCasts,
    FoldConstants,
    CancelTransposes,
    MergeReshapes,
)
FIRES = [pytest.param(p, e, id=f"{p.name}-{i}") for p in PASSES for i, e in enumerate(p.examples().fires)]
HOLDS = [pytest.param(p, e, id=f"{p.name}-{i}") for p in PASSES for i, e in enumerate(p.examples().holds)]


@pytest.mark.parametrize(("kind", "example"), FIRES)
def test_fires_once_and_for_all(kind, example):
    before = read(example.text)
    result = rewrite(kind(), before)
    assert result.modified
    assert not rewrite(kind(), result.model).modified
    assert interface(result.model) == interface(before)
    if kind.contract is Contract.BITWISE:
        assert_same_bits(before, result.model)
    else:
        assert_close(before, result.model)


@pytest.mark.parametrize(("kind", "example"), HOLDS)
def test_holds_and_says_why(kind, example):
    before = read(example.text)
    result = rewrite(kind(), before)
    assert not result.modified
    assert ir.to_proto(result.model) == ir.to_proto(before)
    assert bool(example.reason) == bool(result.rejects)
    if example.reason:
        assert example.reason in result.rejects[0].reason
