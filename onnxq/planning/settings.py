"""What bears on the choice of forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxq.planning.options import Count, Form
from onnxq.targets import Target

EXCHANGE = 8.0
"""A step to a slower plan is taken where it removes this many times more of the error than it adds time: what
keeps a plan within a few percent of plain static products where these lose little."""
BYTES_EXCHANGE = 5.0
"""The same for plans that count bytes: 8 bits instead of 4 where they take away that much more."""
FEEDBACK_LEAVES = 0.3
"""Part of the squared error of rounding a weight that is left after feedback: .00023 of .00082 on MiniLM."""


@dataclass(frozen=True)
class TrialSettings:
    """How finely a trial looks.

    Attributes:
        activation_bits: Of the activation.
        weight_noise: Part of the weights' squared rounding error that the real rounding leaves.
        rows: Most tokens to look at.
    """

    activation_bits: int = 8
    weight_noise: float = FEEDBACK_LEAVES
    rows: int = 512


@dataclass(frozen=True)
class PlanSettings:
    """What bears on the choice.

    Attributes:
        target: The processor.
        margin: Part by which static ranges are widened.
        keep_float: Patterns (``*`` stands for any text) of nodes that stay float.
        forms: Forms that the format has.
        insert_nodes: Whether a Mul may even channels out.
        split: Whether outlier channels may be multiplied in float, or copied.
        tokens: Rows of an activation that costs are reckoned with where none are known.
        rows: By activation, its rows at each of the shapes that the model is wanted for; costs are added up
            over them.
        exchange: See `EXCHANGE`.
        count: What a form costs.
        trial: How finely options are tried.
    """

    target: Target
    margin: float = 0.2
    keep_float: tuple[str, ...] = ()
    forms: tuple[Form, ...] = ("int8 static", "int8 per-token", "int8 blocks", "float")
    insert_nodes: bool = True
    split: bool = True
    tokens: int = 128
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    exchange: float = EXCHANGE
    count: Count = "time"
    trial: TrialSettings = field(default_factory=TrialSettings)

    def rows_of(self, activation: str) -> tuple[int, ...]:
        """Rows that an activation has, shape by shape."""
        return self.rows.get(activation) or (self.tokens,)
