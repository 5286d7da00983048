import click
import pytest

from onnxq.cli.words import Fraction, Numbers, Pair, Processors, Shape, Shapes


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Shape(), "x=1", ("x", (1,))),
        (Shape(), "a=b=1x128x3", ("a=b", (1, 128, 3))),
        (Shapes(), "x=1x128", (("x", (1, 128)),)),
        (Shapes(), "a=1x2, b=3,past=0", (("a", (1, 2)), ("b", (3,)), ("past", (0,)))),
        (Shapes(), "a,b=c=1x128,d=2", (("a,b=c", (1, 128)), ("d", (2,)))),
        (Processors(), "0,2-4,3", (0, 2, 3, 4)),
        (Processors(), "any", ()),
        (Pair(), "options=a=b", ("options", "a=b")),
        (Fraction(), "1%", 0.01),
        (Fraction(), " 2.5 % ", 0.025),
        (Fraction(), "0.01", 0.01),
        (Numbers(), "0.485,0.456, 1e-3", (0.485, 0.456, 0.001)),
        (Numbers(), "1", (1.0,)),
    ],
)
def test_values_are_read(kind: click.ParamType[object], text: str, value: object) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Shape(), "=1x2"),
        (Shape(), "x="),
        (Shape(), "x=1x"),
        (Shape(), "x=-1"),
        (Shapes(), "1x128"),
        (Shapes(), "=1"),
        (Shapes(), "x=1x2,y"),
        (Shapes(), "x=1x2,"),
        (Processors(), ""),
        (Processors(), "2-1"),
        (Processors(), "-1"),
        (Pair(), "=1"),
        (Fraction(), "%"),
        (Numbers(), "1,,2"),
    ],
)
def test_other_values_are_refused(kind: click.ParamType[object], text: str) -> None:
    with pytest.raises(click.BadParameter, match="written like"):
        kind.convert(text, None, None)
