import click
import pytest

from onnxq.cli.words import Fraction, Numbers, Pair, Processors, Shapes, Size


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Shapes(), "x=1", (("x", (1,)),)),
        (Shapes(), "a=b=1x128x3", (("a=b", (1, 128, 3)),)),
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
        (Size(), "25MB", 25_000_000),
        (Size(), " 1.5 GiB ", 3 << 29),
        (Size(), "4096", 4096),
    ],
)
def test_values_are_read(kind: click.ParamType[object], text: str, value: object) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Shapes(), "=1x2"),
        (Shapes(), "x="),
        (Shapes(), "x=1x"),
        (Shapes(), "x=-1"),
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
        (Size(), "25 parsecs"),
        (Size(), "-1"),
        (Size(), "MB"),
    ],
)
def test_other_values_are_refused(kind: click.ParamType[object], text: str) -> None:
    with pytest.raises(click.BadParameter, match="written like"):
        kind.convert(text, None, None)
