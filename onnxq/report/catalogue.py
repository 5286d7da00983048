"""What a pass says of itself, as data: read off its class, so that it cannot go stale."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import TYPE_CHECKING, Any, get_type_hints

from onnxq.recipe.spec import format_value, options_of
from onnxq.recipe.typed import describe, plain
from onnxq.report.results import PassPage
from onnxq.report.rows import OptionRow

if TYPE_CHECKING:
    from onnxq.contract import AnyPass


def describe_pass(kind: type[AnyPass]) -> PassPage:
    """Law, promise, needs and options of a pass class."""
    text = _text(kind)
    return PassPage(
        name=kind.name,
        law=" ".join(text.partition("\n\n")[0].split()),
        text=text,
        contract=kind.contract.value,
        statistics=tuple(sorted(statistic.value for statistic in kind.needs.statistics)),
        opset=kind.needs.opset,
        options=_options(kind),
    )


def _text(kind: type[AnyPass]) -> str:
    """The docstring that states the law: that of the file, or else that of the class."""
    written = [inspect.cleandoc(each.__doc__ or "") for each in (sys.modules[kind.__module__], kind)]
    return next((text for text in written if "=>" in text), written[1])


def _options(kind: type[AnyPass]) -> tuple[OptionRow, ...]:
    hints = get_type_hints(kind)
    return tuple(
        OptionRow(field.name, describe(hints[field.name]), _default(field)) for field in options_of(kind)
    )


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return format_value(plain(field.default_factory()))
    if field.default is dataclasses.MISSING:
        return "must be given"
    return format_value(plain(field.default))
