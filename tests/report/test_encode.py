import dataclasses
import inspect
import json
import math

import pytest

from onnxq.report import results
from onnxq.report.encode import to_json
from onnxq.report.measures import Fidelity
from onnxq.report.outline import outline
from onnxq.report.results import Report
from onnxq.report.rows import Part

RESULTS = [
    kind
    for _, kind in inspect.getmembers(results, inspect.isclass)
    if dataclasses.is_dataclass(kind) and hasattr(kind, "schema")
]


def test_a_report_is_written_with_its_schema_first_and_every_field(report: Report) -> None:
    read = json.loads(to_json(report))
    assert next(iter(read.items())) == ("schema", "onnxq/report-1")
    assert set(read) == {"schema", *(field.name for field in dataclasses.fields(Report))}
    assert read["layers"][1]["range_before"]["low"] == report.layers[1].range_before.low
    assert read["kernels"] == dict(report.kernels)


def test_same_report_same_bytes(report: Report) -> None:
    assert to_json(report) == to_json(dataclasses.replace(report))


def test_what_is_not_finite_is_text_that_float_reads() -> None:
    read = json.loads(to_json(Fidelity("y", math.nan, -math.inf, math.inf, 0.0)))
    assert (read["cosine_mean"], read["cosine_min"], read["sqnr_db"]) == ("nan", "-inf", "inf")
    assert math.isinf(float(read["sqnr_db"]))
    assert read["top1"] is None


def test_every_result_has_a_schema_of_its_own() -> None:
    schemas = [kind.schema for kind in RESULTS]
    assert len(set(schemas)) == len(schemas) > 5
    assert all(schema.startswith("onnxq/") and schema[-1].isdigit() for schema in schemas)


@pytest.mark.parametrize("kind", [kind for kind in RESULTS if kind is not results.Problem])
def test_every_result_has_an_outline(kind: type[object]) -> None:
    assert outline.dispatch(kind) is not outline.dispatch(object)


def test_a_name_that_is_no_text_can_still_be_written() -> None:
    text = to_json(Part("linear", "\udcff\u2192"))
    assert text.isascii()
    assert json.loads(text)["name"] == "\udcff\u2192"
