"""What a pass is: what it promises, what it needs, and the only way it may change a graph."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.edit import Change as Change
from onnxq.edit import Edit as Edit
from onnxq.statistics import Statistic, Statistics


class Contract(enum.Enum):
    """What a pass promises about the function that the model computes."""

    BITWISE = "bitwise"
    """The same bits on an unoptimised runtime, for every input."""
    REASSOCIATES = "reassociates"
    """The same real function; only floating-point rounding may differ."""
    LOSSY = "lossy"
    """Another function, close to the old one; needs an error budget."""


@dataclass(frozen=True)
class Needs:
    """What a pass cannot work without.

    Attributes:
        statistics: Kinds of calibration statistics, gathered for the values that `Pass.observe` names.
        opset: Lowest version of the default operator set of a model the pass can rewrite.
    """

    statistics: frozenset[Statistic] = frozenset()
    opset: int = 1


@dataclass(frozen=True)
class Reject:
    """A near match that a pass leaves alone, and why, in words for the report."""

    reason: str
    node: str


@dataclass(frozen=True)
class Example:
    """One graph in ONNX text form as evidence for or against a pass.

    Attributes:
        text: The model, as `onnx.parser` reads it.
        reason: For a graph the pass must leave alone: part of the reason it must give ("" for no near match).
        constants: Arrays for initializers that the text uses without declaring or with other data, by name.
        statistics: Calibration statistics for the pass to read.
    """

    text: str
    reason: str = ""
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)

    def model(self) -> ir.Model:
        """The graph as a model, with the constants as initializers of its main graph."""
        import onnx.parser

        proto = onnx.parser.parse_model(self.text)
        for part in (proto.graph.initializer, proto.graph.value_info):
            kept = [each for each in part if each.name not in self.constants]
            del part[:]
            part.extend(kept)
        for name, array in self.constants.items():
            proto.graph.initializer.append(ir.to_proto(ir.tensor(array, name=name)))
        return ir.from_proto(proto)


@dataclass(frozen=True)
class Examples:
    """A pass's own proof: graphs on which it fires, and graphs on which it holds still."""

    fires: Sequence[Example] = ()
    holds: Sequence[Example] = ()


@dataclass(frozen=True)
class Context:
    """What a pass may look at besides the node in hand."""

    model: ir.Model
    statistics: Statistics = field(default_factory=Statistics)
    opsets: Mapping[str, int] | None = None
    """Operator sets of the function body being walked; None in the main graph, which has the model's."""

    @property
    def opset(self) -> int:
        """Version of the default operator set where the node in hand lives."""
        imports = self.model.opset_imports if self.opsets is None else self.opsets
        return int(imports.get("", 1))


class Pass(ABC):
    """A rewrite of one spot of a graph. Subclasses are frozen dataclasses; their fields are the options.

    The pipeline walks every graph, subgraph and function in order, calls `match` on each node and `rewrite`
    on each match, until nothing matches any more. A pass keeps no state and knows no other pass.
    """

    name: ClassVar[str]
    contract: ClassVar[Contract]
    needs: ClassVar[Needs] = Needs()
    raises_opset: ClassVar[bool] = False
    """Whether the pass may raise the opset, which from any other pass is a broken promise."""

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """Values of `model` whose statistics the pass will read."""
        return ()

    def wanted(self, model: ir.Model) -> Mapping[Statistic, Iterable[ir.Value]]:
        """Which statistics to gather of which values: all kinds in `needs` of all that `observe` names.

        A pass whose options ask for more, or for less, says so here.
        """
        return dict.fromkeys(self.needs.statistics, tuple(self.observe(model)))

    @abstractmethod
    def match(self, node: ir.Node, context: Context) -> Any | Reject | None:
        """What was found at `node`; a `Reject` for a near match; None for "not my shape"."""

    @abstractmethod
    def rewrite(self, found: Any, edit: Edit) -> None:
        """Change the graph, through `edit` alone."""

    @classmethod
    def examples(cls) -> Examples:
        """Graphs that prove the pass, run by the contract suite."""
        return Examples()


class ModelPass(ABC):
    """A rewrite of a whole model by code that does not go through `Edit`, such as a ready-made pass.

    Whether it changed anything is decided by comparing the model before and after, never by its word.
    """

    name: ClassVar[str]
    contract: ClassVar[Contract]
    needs: ClassVar[Needs] = Needs()
    raises_opset: ClassVar[bool] = False
    """Whether the pass may raise the opset, which from any other pass is a broken promise."""

    @abstractmethod
    def transform(self, model: ir.Model) -> ir.Model:
        """The rewritten model; `model` itself may be changed or not.

        Raises:
            UnsupportedModel: The pass leaves this model alone; the message is the reason, as in a `Reject`.
        """

    @classmethod
    def examples(cls) -> Examples:
        """Graphs that prove the pass, run by the contract suite."""
        return Examples()


AnyPass = Pass | ModelPass


def names_wanted(passes: Iterable[AnyPass], model: ir.Model) -> dict[Statistic, set[str]]:
    """Names of the values of `model` of which any of `passes` wants statistics, by kind."""
    names: dict[Statistic, set[str]] = {}
    for each in passes:
        asked = each.wanted(model) if isinstance(each, Pass) else {}
        for kind, values in asked.items():
            names.setdefault(kind, set()).update(str(value.name) for value in values)
    return names
