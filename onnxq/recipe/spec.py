"""A pass as a word: `name{option=value,...}`, read by the types of the pass's own fields.

Values are numbers, `true`, `false`, `none`, words, "quoted text" and [lists, of, them].
`gs:module:function{contract=lossy}` is somebody's function over an onnx-graphsurgeon graph, as a pass.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from onnxq.errors import UsageProblem
from onnxq.lookup import find_function
from onnxq.recipe.typed import build, convert, plain, unknown

if TYPE_CHECKING:
    from onnxq.contract import AnyPass

_NAME = re.compile(r"[A-Za-z][\w.:-]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_BARE = re.compile(r'[^\s,"\[\]{}=][^,"\[\]{}=]*')
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)")
GRAPHSURGEON = "gs:"
"""Opens the name of a function over an onnx-graphsurgeon graph."""
_PROMISE = "reassociates"
"""What such a function promises unless it says otherwise."""
_CONSTANTS = {"true": True, "false": False, "none": None}


def parse_pass(text: str, passes: Mapping[str, type[AnyPass]] | None = None) -> AnyPass:
    """The pass that `text` spells, e.g. ``fold-gamma{guard=1.0}``.

    Args:
        text: Name and options.
        passes: Pass classes by name; the registry if None.

    Raises:
        UsageProblem: No such pass or option, a value of another type, or text that is no pass at all.
    """
    name, options = _Reader(text).spec()
    if name.startswith(GRAPHSURGEON):
        return _graphsurgeon(name, options)
    known = _registry() if passes is None else passes
    if name not in known:
        raise unknown(name, name, known, "pass")
    kind = known[name]
    names = [field.name for field in options_of(kind)]
    for key in options:
        if key not in names:
            raise unknown(f"{name}.{key}", key, names, "option")
    made: AnyPass = build(kind, options, name) if names else kind()
    return made


def format_pass(made: AnyPass) -> str:
    """The text that `parse_pass` reads back as an equal pass; options at their default are left out."""
    if made.name.startswith(GRAPHSURGEON):
        contract = made.contract.value
        return made.name if contract == _PROMISE else f"{made.name}{{contract={contract}}}"
    pairs = []
    for field in options_of(type(made)):
        value = getattr(made, field.name)
        if value != _default(field):
            pairs.append(f"{field.name}={format_value(plain(value))}")
    return f"{made.name}{{{','.join(pairs)}}}" if pairs else made.name


def options_of(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """The options of a pass class: its fields; a class that is no dataclass has none."""
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def format_value(value: Any) -> str:
    """A plain value as the options of a pass are written."""
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, str):
        return value if _is_bare(value) else json.dumps(value)
    return repr(value)


def _graphsurgeon(name: str, options: Mapping[str, Any]) -> AnyPass:
    """The pass that runs ``gs:module:function``.

    Raises:
        UsageProblem: There is no such function, or an option that is not its contract.
    """
    from onnxq.contract import Contract
    from onnxq.interop import GraphSurgeonPass

    for key in options:
        if key != "contract":
            raise unknown(f"{name}.{key}", key, ("contract",), "option")
    contract = convert(options.get("contract", _PROMISE), Contract, f"{name}.contract")
    try:
        function = find_function(name.removeprefix(GRAPHSURGEON))
    except ImportError as error:
        raise UsageProblem(
            f"cannot find {name}: {error}",
            hint="Write gs:module:function, importable from the working directory; it takes a graph.",
            slug="no-such-function",
        ) from error
    return GraphSurgeonPass(function, name, contract)


def _registry() -> Mapping[str, type[AnyPass]]:
    from onnxq.passes import registry

    return registry()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_bare(text: str) -> bool:
    whole = _BARE.fullmatch(text) is not None and text == text.strip() and text.isprintable()
    return whole and _literal(text) == text


def _literal(word: str) -> Any:
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if _INTEGER.fullmatch(word):
        return int(word)
    return float(word) if _NUMBER.fullmatch(word) else word


class _Reader:
    """A position in the text, moved forward by what is read."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.position = 0

    def spec(self) -> tuple[str, dict[str, Any]]:
        name, options = self.name("the name of a pass"), {}
        if self.take("{"):
            while not self.take("}"):
                key = self.name("an option").replace("-", "_")
                if not self.take("="):
                    self.fail("'='")
                if key in options:
                    raise UsageProblem(f"{name}: {key} is given twice", slug="bad-pass")
                options[key] = self.value()
                self.separator("}")
        if self.position < len(self.text):
            self.fail("the end, or '{'")
        return name, options

    def value(self) -> Any:
        if self.take("["):
            items = []
            while not self.take("]"):
                items.append(self.value())
                self.separator("]")
            return items
        if quoted := self.match(_QUOTED):
            try:
                return json.loads(quoted)
            except json.JSONDecodeError:
                self.fail("text in quotes")
        if word := self.match(_BARE):
            return _literal(word.strip())
        self.fail("a value")

    def name(self, wanted: str) -> str:
        return self.match(_NAME) or self.fail(wanted)

    def separator(self, closing: str) -> None:
        if not self.take(",") and not self.text.startswith(closing, self.position):
            self.fail(f"',' or {closing!r}")

    def take(self, mark: str) -> bool:
        self.skip()
        found = self.text.startswith(mark, self.position)
        self.position += found
        self.skip()
        return found

    def match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.position)
        if found is None:
            return ""
        self.position = found.end()
        return found.group()

    def skip(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def fail(self, wanted: str) -> NoReturn:
        raise UsageProblem(
            f"{self.text!r} is not a pass: at character {self.position + 1} {wanted} was expected",
            hint='It is written like fold-gamma{guard=1.0,skip=["a","b"]}.',
            slug="bad-pass",
        )
