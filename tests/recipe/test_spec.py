import dataclasses
import enum
from typing import ClassVar, Literal

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.contract import Contract, ModelPass
from onnxq.errors import UsageProblem
from onnxq.passes import registry
from onnxq.recipe import format_pass, parse_pass


class Side(enum.Enum):
    LEFT = "left"
    FAR_RIGHT = "far-right"


class Still(ModelPass):
    name: ClassVar[str] = "still"
    contract: ClassVar[Contract] = Contract.BITWISE

    def transform(self, model: ir.Model) -> ir.Model:
        return model


@dataclasses.dataclass(frozen=True)
class Tile(Still):
    name: ClassVar[str] = "tile"

    guard: float = 1.0
    count: int = 4
    loud: bool = False
    label: str = "x"
    side: Side = Side.LEFT
    method: Literal["minmax", "mse"] = "minmax"
    limit: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    names: tuple[str, ...] = ()
    plan: tuple[tuple[str, int | tuple[int, ...]], ...] = ()


PASSES = {"still": Still, "tile": Tile}

tiles = st.builds(
    Tile,
    guard=st.floats(allow_nan=False),
    count=st.integers(),
    loud=st.booleans(),
    label=st.text(),
    side=st.sampled_from(Side),
    method=st.sampled_from(["minmax", "mse"]),
    limit=st.none() | st.floats(allow_nan=False),
    sizes=st.lists(st.integers()).map(tuple),
    names=st.lists(st.text() | st.sampled_from(["none", "1e5", "a b", "inf", "true", "]", 'a"'])).map(tuple),
    plan=st.lists(st.tuples(st.text(), st.integers() | st.lists(st.integers()).map(tuple))).map(tuple),
)


@given(tiles)
def test_what_a_pass_is_written_as_reads_back_as_that_pass(made: Tile) -> None:
    assert parse_pass(format_pass(made), PASSES) == made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("tile", Tile()),
        ("still", None),
        ("tile{}", Tile()),
        (" tile { guard = 2 , count=3, } ", Tile(guard=2.0, count=3)),
        ('tile{sizes=[4,4],names=[a b,"c,d"]}', Tile(sizes=(4, 4), names=("a b", "c,d"))),
        ("tile{side=far-right,method=mse,loud=true}", Tile(side=Side.FAR_RIGHT, method="mse", loud=True)),
        ("tile{limit=1e-3}", Tile(limit=0.001)),
        ("tile{limit=none}", Tile()),
        ("tile{plan=[[/a.0/b, [5, 9]], [c, 3]]}", Tile(plan=(("/a.0/b", (5, 9)), ("c", 3)))),
    ],
)
def test_options_are_read_by_the_types_of_the_fields(text: str, made: Tile | None) -> None:
    read = parse_pass(text, PASSES)
    assert read == made if made is not None else type(read) is Still


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("tiel", "there is no pass 'tiel'", "Did you mean 'tile'?"),
        ("zzz", "there is no pass 'zzz'", "still, tile"),
        ("tile{gard=1}", "there is no option 'tile.gard'", "Did you mean 'guard'?"),
        ("still{guard=1}", "there is no option 'still.guard'", "There are none."),
        ("tile{guard=high}", "tile.guard is 'high'", "a number"),
        ("tile{count=1.5}", "tile.count is 1.5", "a whole number"),
        ("tile{loud=1}", "tile.loud is 1", "true or false"),
        ("tile{side=right}", "tile.side is 'right'", "Did you mean 'far-right'?"),
        ("tile{sizes=4}", "tile.sizes is 4", "a list of a whole number"),
        ("tile{guard=1,guard=2}", "given twice", ""),
        ("tile{guard}", "character 11 '='", "fold-gamma{"),
        ("tile{guard=}", "a value was expected", "fold-gamma{"),
        ("tile{guard=1", "',' or '}'", "fold-gamma{"),
        ("tile{sizes=[1", "',' or ']'", "fold-gamma{"),
        ('tile{label="\\q"}', "text in quotes", "fold-gamma{"),
        ("tile}", "the end, or '{'", "fold-gamma{"),
        ("", "the name of a pass", "fold-gamma{"),
    ],
)
def test_a_wrong_word_is_refused_with_the_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_pass(text, PASSES)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.slug


@pytest.mark.parametrize("name", list(registry()))
def test_every_pass_of_the_registry_can_be_written_as_a_word(name: str) -> None:
    made = parse_pass(name)
    assert made.name == name
    assert parse_pass(format_pass(made)) == made
