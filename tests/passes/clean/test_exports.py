"""What torch's two exporters write of a small transformer, through the cleaning pipeline."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.interop import as_model
from onnxq.passes.clean import CLEANING, cleaning
from onnxq.pipeline import apply_pass, broken_promise
from tests.passes.clean.rewriting import assert_close, compute, interface, ops_of

torch = pytest.importorskip("torch")


class RMSNorm(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale


class Block(torch.nn.Module):
    """Attention and a feed-forward network, with everything that exporters leave behind."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between, self.after = (
            torch.nn.LayerNorm(width),
            torch.nn.LayerNorm(width),
            RMSNorm(width),
        )
        self.mix = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.drop = torch.nn.Dropout(0.5)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.5)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.mix(self.before(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5, -1)
        mixed = (self.drop(weights) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.drop(self.out(mixed))
        x = x + self.down(torch.nn.functional.gelu(self.up(self.between(x))))
        return self.after(x.float())


def exported(dynamo: bool, opset: int) -> ir.Model:
    torch.manual_seed(0)
    block, x = Block().eval(), torch.zeros(2, 5, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            sizes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},)
            program = torch.onnx.export(
                block, (x,), dynamo=True, opset_version=opset, dynamic_shapes=sizes, verbose=False,
                input_names=["x"], output_names=["y"],
            )  # fmt: skip
            return as_model(program)
        buffer = io.BytesIO()
        torch.onnx.export(
            block, (x,), buffer, dynamo=False, opset_version=opset, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "batch", 1: "length"}, "y": {0: "batch", 1: "length"}},
            do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
        return as_model(buffer.getvalue())


@pytest.fixture(scope="module", params=[(False, 13), (False, 17), (True, 18), (True, 23)], ids=str)
def model(request) -> ir.Model:
    dynamo, opset = request.param
    return exported(dynamo, opset)


def cleaned(model: ir.Model, opset: int | None) -> ir.Model:
    for a_pass in cleaning(opset):
        result = apply_pass(model, a_pass)
        assert result.settled
        assert broken_promise(model, result.model, a_pass) == ""
        model = result.model
    return model


def test_every_compound_operator_gets_its_name_back(model):
    ops = ops_of(cleaned(model, 23))
    assert (ops.count("LayerNormalization"), ops.count("RMSNormalization"), ops.count("Gelu")) == (2, 1, 1)
    assert not {"Dropout", "Identity", "Erf", "ReduceMean", "Sqrt", "Pow"} & set(ops)


@pytest.mark.parametrize("opset", [None, 20, 23])
def test_the_function_stays_within_rounding(model, opset):
    after = cleaned(model, opset)
    assert interface(after) == interface(model)
    assert_close(model, after, units=64)


def test_cleaning_is_done_after_one_run(model):
    once = cleaned(model, 23)
    assert ir.to_proto(cleaned(once, 23)) == ir.to_proto(once)


def test_no_pass_makes_the_file_grow(model):
    before = len(ir.to_proto(model).SerializeToString())
    assert len(ir.to_proto(cleaned(model, 23)).SerializeToString()) < before + 4096


def test_provenance_of_nodes_survives(model):
    told = {key for node in model.graph for key in node.metadata_props if "onnxscript" not in key}
    (gelu,) = [node for node in cleaned(model, 23).graph if node.op_type == "Gelu"]
    assert told <= {*gelu.metadata_props}


def test_bitwise_passes_alone_change_no_bit(model):
    after = model
    for a_pass in cleaning():
        if a_pass.contract.value == "bitwise":
            after = apply_pass(after, a_pass).model
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 7, 16)).astype(np.float32)}
    for old, new in zip(compute(model, feeds), compute(after, feeds), strict=True):
        assert old.tobytes() == new.tobytes()


def test_the_preset_names_registered_passes_in_order():
    assert [a_pass.name for a_pass in cleaning()] == list(CLEANING)
    assert [a_pass.name for a_pass in cleaning(20)][1:3] == ["infer-shapes", "raise-opset"]
