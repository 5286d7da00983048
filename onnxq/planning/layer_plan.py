"""What is decided for one linear: its form, why, and what else was tried."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.edit import label_of
from onnxq.ir.linear import Linear
from onnxq.planning.options import Form, Option


@dataclass(frozen=True)
class Considered:
    """A form that was tried.

    Attributes:
        option: In words.
        sqnr_db: SQNR of the linear's own output in that form, its input being exact; infinite for float.
        cost: Microseconds it is expected to take, with all linears that read the same activation; or bytes of
            their weights.
    """

    option: str
    sqnr_db: float
    cost: float


@dataclass(frozen=True)
class LayerPlan:
    """The form of one linear, and why.

    Attributes:
        name: Name of the product's node, or of its output if it has none.
        activation: Name of the value it multiplies.
        channels: K.
        columns: N.
        option: What was chosen.
        reason: Why, in words that are the same for all linears of which it holds.
        sqnr_db: SQNR of its own output in that form, its input being exact; None where it was not measured
            (and infinite for float).
        outliers: Channels that are multiplied in float.
        considered: Everything that was tried, the cheapest first.
        group: Name of the group it was decided with; "" if nothing was to be decided.
        evidence: The numbers behind the reason, in words; "" where nothing was weighed.
        input_effect_db: SQNR of the model's output with nothing rounded but the activation, in static 8 bits
            whatever was chosen; None where that was not measured.
    """

    name: str
    activation: str
    channels: int
    columns: int
    option: Option
    reason: str
    sqnr_db: float | None = None
    outliers: tuple[int, ...] = ()
    considered: tuple[Considered, ...] = ()
    group: str = ""
    evidence: str = ""
    input_effect_db: float | None = None

    @property
    def form(self) -> Form:
        """How the product is executed."""
        return self.option.form


def kept_float(linear: Linear, reason: str) -> LayerPlan:
    """The plan of a linear that nothing else is known of."""
    return LayerPlan(
        label_of(linear.node),
        str(linear.activation.name),
        linear.channels,
        linear.columns,
        Option("float"),
        reason,
    )
