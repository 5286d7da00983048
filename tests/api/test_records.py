"""Rows of the table of passes."""

import onnx.parser

from onnxq.api.records import equality_record, pass_rows
from onnxq.files import from_proto
from onnxq.passes import registry
from onnxq.pipeline import Verify, run
from onnxq.verify import OracleSettings

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y)
{ a = Identity(x) b = Dropout(a) y = Tanh(b) }"""
NAMES = ("drop-identity", "drop-dropout", "merge-reshapes")


def rows(verify: Verify):
    passes = [registry()[name]() for name in NAMES]
    model = from_proto(onnx.parser.parse_model(TEXT))
    result = run(model, passes, verify=verify, oracle=OracleSettings(isolated=False))
    return pass_rows(passes, result), equality_record(result)


def test_passes_judged_as_a_whole_carry_its_verdict():
    found, exact = rows("end")
    assert [(row.verdict, row.note) for row in found[:2]] == [("equal", "together")] * 2
    assert (found[2].changes, found[2].verdict, found[2].note) == (0, "not checked", "")
    assert exact is not None
    assert exact.verdict == "equal"
    assert exact.feeds > 0


def test_passes_judged_one_by_one_carry_their_own():
    found, exact = rows("each")
    assert [(row.verdict, row.note) for row in found[:2]] == [("equal", "")] * 2
    assert exact is not None


def test_nothing_is_claimed_where_nothing_was_judged():
    found, exact = rows("never")
    assert {row.verdict for row in found} == {"not checked"}
    assert exact is None
