"""The node cases of the onnx package through the rules of torch: the numbers of reference and runtime."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import warnings
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx.backend.test.case.node as node_cases
import onnx_ir as ir
import pytest
import torch

from onnxq.errors import BackendError, OnnxqError, UnsupportedModel
from onnxq.learn.operators import RULES
from onnxq.learn.program import Program
from onnxq.runtime import open_session
from tests.graphs import PLAIN

EMPTY = {"test_reduce_max_empty_set", "test_reduce_max_empty_set_bool", "test_reduce_min_empty_set"}
"""Reductions of nothing, for which torch has no answer."""

RUNTIME_DIFFERS = ("bfloat16", "attention", "downsample_scales_cubic_align", "downsample_scales_linear_align")
"""Where the runtime's numbers are not those of the reference, or cannot be fed."""


@dataclass
class Outcome:
    passed: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    compared: int = 0


def cases():
    """The cases of the operators that have rules; to collect those of all takes longer than to run these."""
    known = {name.lower() for name in RULES[""]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.iter_modules(node_cases.__path__):
            if module.name.replace("_", "") in known:
                importlib.import_module(f"{node_cases.__name__}.{module.name}")
    names = set(RULES[""])
    unique = {case.name: case for case in node_cases._NodeTestCases}
    return [
        case
        for case in unique.values()
        if {node.op_type for node in case.model.graph.node} <= names
        and plain(case)
        and not ("attention" in case.name and "expanded" in case.name)  # long, and no new operators
    ]


def plain(case) -> bool:
    """Whether all inputs are tensors, not sequences or optionals."""
    return all(value.type.HasField("tensor_type") for value in case.model.graph.input)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    logging.disable(logging.WARNING)
    found = Outcome()
    for case in cases():
        try:
            put_through(case, found)
        except UnsupportedModel as error:
            found.refused[case.name] = error.message
        except (OnnxqError, AssertionError) as error:
            found.wrong[case.name] = str(error)
    logging.disable(logging.NOTSET)
    return found


def put_through(case, found: Outcome) -> None:
    model = ir.from_proto(case.model)
    program = Program(model)
    try:
        session = open_session(case.model.SerializeToString(), PLAIN)
    except BackendError:
        session = None  # no kernel for it on the CPU
    for given, wanted in case.data_sets:
        names = (str(value.name) for value in model.graph.inputs)
        feeds = dict(zip(names, map(np.asarray, given), strict=True))
        made = list(program(feeds).values())
        expect_close(made, wanted)
        if session is not None and not any(word in case.name for word in RUNTIME_DIFFERS):
            expect_close(made, list(session.run(feeds).values()))
            found.compared += 1
    found.passed.update(node.op_type for node in model.graph)


def expect_close(made, wanted) -> None:
    for got, want in zip(made, map(np.asarray, wanted), strict=True):
        array = got.float().numpy() if got.dtype == torch.bfloat16 else got.numpy()
        assert array.shape == want.shape
        assert array.dtype == want.dtype or want.dtype.name == "bfloat16"
        wide = want.dtype.itemsize > 2
        relative, absolute = (1e-4, 1e-5) if wide else (1e-2, 1e-2)
        np.testing.assert_allclose(array.astype(float), want.astype(float), rtol=relative, atol=absolute)


def test_no_case_gives_other_numbers(outcome):
    assert {name: text for name, text in outcome.wrong.items() if name not in EMPTY} == {}


def test_most_cases_are_run_and_compared_with_the_runtime(outcome):
    assert outcome.compared > 600


def test_every_rule_is_put_to_the_test(outcome):
    assert set(RULES[""]) - set(outcome.passed) == {"SimplifiedLayerNormalization"}  # the runtime's own name


def test_what_is_refused_is_no_arithmetic_on_floats(outcome):
    words = (
        "training",
        "element type",
        "to FLOAT",
        "to STRING",
        "to INT",
        "to UINT",
        "strings",
        "region",
        "aspect",
        "reduction",
        "window",
        "before opset",
        "anti",
    )
    assert {
        name: text for name, text in outcome.refused.items() if not any(word in text for word in words)
    } == {}
