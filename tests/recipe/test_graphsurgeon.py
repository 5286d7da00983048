"""Somebody's graphsurgeon function as a word for a pass."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import onnx.parser
import pytest

from onnxq.api.records import pass_rows
from onnxq.contract import Contract
from onnxq.errors import UsageProblem
from onnxq.files import from_proto
from onnxq.pipeline import run
from onnxq.recipe import format_pass, parse_pass

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { a = Neg(x) y = Neg(a) }'
MODULE = "theirs_for_gs"
CODE = """
    def drop_both(graph):
        graph.outputs[0].inputs.clear()
        graph.nodes.clear()
        import onnx_graphsurgeon as gs
        graph.nodes.append(gs.Node("Identity", "same", inputs=[graph.inputs[0]], outputs=[graph.outputs[0]]))

    def drop_one(graph):
        graph.nodes[1].op = "Identity"

    def fail(graph):
        raise KeyError("lost")

    number = 3
"""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("onnx_graphsurgeon")
    (tmp_path / f"{MODULE}.py").write_text(dedent(CODE))
    (tmp_path / "broken_for_gs.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    yield
    import sys

    sys.modules.pop(MODULE, None)


def test_the_function_is_found_in_the_working_directory_and_run() -> None:
    made = parse_pass(f"gs:{MODULE}:drop_both")
    assert made.contract is Contract.REASSOCIATES
    result = run(from_proto(onnx.parser.parse_model(TEXT)), [made], verify="each")
    assert [node.op_type for node in result.model.graph] == ["Identity"]
    (row,) = pass_rows([made], result)
    assert (row.name, row.contract, row.verdict) == (f"gs:{MODULE}:drop_both", "reassociates", "equal")


def test_a_function_that_changes_the_meaning_is_undone_unless_it_says_so() -> None:
    model = from_proto(onnx.parser.parse_model(TEXT))
    undone = run(model, [parse_pass(f"gs:{MODULE}:drop_one")], verify="each")
    assert undone.rolled_back
    assert [node.op_type for node in undone.model.graph] == ["Neg", "Neg"]
    lossy = parse_pass(f"gs:{MODULE}:drop_one{{contract=lossy}}")
    assert [node.op_type for node in run(model, [lossy]).model.graph] == ["Neg", "Identity"]


def test_a_function_that_raises_is_undone() -> None:
    result = run(from_proto(onnx.parser.parse_model(TEXT)), [parse_pass(f"gs:{MODULE}:fail")])
    assert "lost" in result.rolled_back[f"gs:{MODULE}:fail"]


@pytest.mark.parametrize("promise", ["", "{contract=bitwise}", "{contract=lossy}"])
def test_it_is_written_as_it_was_read(promise: str) -> None:
    text = f"gs:{MODULE}:drop_one{promise}"
    assert format_pass(parse_pass(text)) == text


@pytest.mark.parametrize(
    ("text", "message", "slug"),
    [
        ("gs:nowhere_at_all:f", "No module named", "no-such-function"),
        (f"gs:{MODULE}:absent", "is nothing, not a function", "no-such-function"),
        (f"gs:{MODULE}:number", "is a int, not a function", "no-such-function"),
        (f"gs:{MODULE}", "not of the form module:function", "no-such-function"),
        ("gs:broken_for_gs:f", "ZeroDivisionError", "no-such-function"),
        (f"gs:{MODULE}:drop_one{{guard=1}}", "there is no option", "unknown-option"),
        (f"gs:{MODULE}:drop_one{{contract=losy}}", "is 'losy'", "bad-setting"),
    ],
)
def test_what_is_no_such_function_is_refused(text: str, message: str, slug: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_pass(text)
    assert message in caught.value.message
    assert caught.value.slug == slug
