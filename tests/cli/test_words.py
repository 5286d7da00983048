import click
import pytest

from onnxq.cli.words import Fraction, Numbers, Shape


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Shape(), "x=1", ("x", (1,))),
        (Shape(), "a=b=1x128x3", ("a=b", (1, 128, 3))),
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
        (Fraction(), "%"),
        (Numbers(), "1,,2"),
    ],
)
def test_other_values_are_refused(kind: click.ParamType[object], text: str) -> None:
    with pytest.raises(click.BadParameter, match="is written like"):
        kind.convert(text, None, None)
