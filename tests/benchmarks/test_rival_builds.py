"""Programs for the tools of others: what they import, what they are told, what ONNX Runtime makes of it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks import rival_builds
from benchmarks.contestants import CONTESTANTS, Rival
from benchmarks.rival_builds import onnxruntime_quantizers
from benchmarks.rival_builds.job import Job, read_job, write_job
from onnxq.files import load, save

PROGRAMS = sorted(Path(rival_builds.__file__).parent.glob("*.py"))
FOREIGN = [*PROGRAMS, Path(rival_builds.__file__).parents[1] / "running.py"]
ALLOWED = {"numpy", "onnx", "onnxruntime", "nncf", "openvino", "benchmarks.rival_builds.job"}


@pytest.fixture
def job(tmp_path):
    rng = np.random.default_rng(0)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 8]))
    weight = ir.Value(name="w", const_value=ir.tensor(rng.normal(size=(8, 4)).astype(np.float32), name="w"))
    node = ir.node("MatMul", [x, weight])
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape(["n", 4])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 17}, name="g")
    save(ir.Model(graph, ir_version=9), tmp_path / "model.onnx")
    np.savez(tmp_path / "calibration.npz", x=rng.normal(size=(5, 8)).astype(np.float32))
    return Job("minilm", tmp_path / "model.onnx", tmp_path / "calibration.npz", 2, tmp_path / "out.onnx", {})


@pytest.mark.parametrize("program", FOREIGN, ids=lambda path: path.stem)
def test_program_imports_what_its_environment_has(program):
    found = set()
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    tops = {each if each in ALLOWED else each.split(".")[0] for each in found}
    assert tops <= ALLOWED | set(sys.stdlib_module_names)


def test_every_rival_names_a_program():
    programs = {path.stem for path in PROGRAMS} - {"__init__", "job"}
    assert programs == {each.maker.program for each in CONTESTANTS.values() if isinstance(each.maker, Rival)}


def test_job_arrives_as_it_was_written(monkeypatch, job):
    monkeypatch.setattr(sys, "argv", ["program", write_job(job)])
    assert read_job() == job


def test_batches_hold_every_sample_once(job):
    batches = job.batches()
    assert [len(each["x"]) for each in batches] == [2, 2, 1]


@pytest.mark.parametrize(
    ("contestant", "operator"), [("ort-noout", "DequantizeLinear"), ("ort-dynamic", "MatMulInteger")]
)
def test_onnxruntime_quantizes_as_the_contestant_says(job, tmp_path, contestant, operator):
    pytest.importorskip("sympy")
    told = Job(**{**job.__dict__, "options": CONTESTANTS[contestant].maker.options})
    made = load(onnxruntime_quantizers.quantize(told, tmp_path))
    assert operator in {node.op_type for node in made.graph}
