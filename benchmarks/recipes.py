"""The methods that `benchmarks.methods` compares, as lists of passes: exact ones first, then the rounding.

Every row rounds the same products, those of an activation and a constant, and nothing else; embeddings,
convolutions and products of two activations stay float. Rows without a word on ranges take extremes, and
rows without a word on weights their nearest codes, one scale for each output column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import AnyPass
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.disassemble_channels import DisassembleChannels
from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.permute_residual import PermuteResidual
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.migrate.split_channels import SplitChannels
from onnxq.passes.migrate.split_groups import SplitGroups
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.planning.layers import Plan, plan_layers
from onnxq.planning.options import Form
from onnxq.planning.settings import PlanSettings
from onnxq.planning.trial import TrialSettings
from onnxq.runtime.machine import read_machine
from onnxq.statistics import Statistics
from onnxq.targets import detect

MARGIN = 0.1
"""Part by which our own 8-bit ranges are wider than what calibration saw."""
PEG_GROUPS = 6
"""Groups of channels of equal size: what the paper takes for BERT."""


@dataclass(frozen=True)
class Bits:
    """Bits of weights and of activations."""

    weights: int
    activations: int

    def __str__(self) -> str:
        return f"W{self.weights}A{self.activations}"


BITS: Mapping[str, Bits] = {str(each): each for each in (Bits(8, 8), Bits(6, 6), Bits(4, 8), Bits(4, 4))}


@dataclass(frozen=True)
class Planned:
    """What the planner of `onnxq optimize` would split off, even out and scale for each token.

    Attributes:
        bits: That it tries options at.
        split: Whether channels may be multiplied in float.
        scale: Whether a Mul may even channels out.
        per_token: Whether an activation may get a scale for each token.
    """

    bits: Bits
    split: bool = True
    scale: bool = True
    per_token: bool = True

    name = "planned"

    def plan(self, model: ir.Model, statistics: Statistics) -> Plan:
        """The plan for a model whose norms are migrated; nothing stays float, or bits would mean little."""
        forms: tuple[Form, ...] = ("int8 static", "int8 per-token") if self.per_token else ("int8 static",)
        margin = MARGIN if self.bits.activations == 8 else 0.0
        trial = TrialSettings(self.bits.weights, self.bits.activations, margin)
        settings = PlanSettings(
            detect(read_machine()),
            forms=forms,
            insert_nodes=self.scale,
            split=self.split,
            trial=trial,
        )
        return plan_layers(model, statistics, settings)


Step = AnyPass | Planned


@dataclass(frozen=True)
class Recipe:
    """One row of the table, at some bits.

    Attributes:
        rounding: The lossy pass.
        exact: What runs before it.
        clipping: Whether ranges are then clipped token-wise, judged by the model's output.
        per_token: Whether every activation gets a scale for each token, found while the model runs.
    """

    rounding: QuantizeLinears | QuantizeBlocks
    exact: tuple[Step, ...] = ()
    clipping: bool = False
    per_token: bool = False


Made = Callable[[Bits], Recipe | None]


def linears(bits: Bits, **options: object) -> QuantizeLinears:
    """Rounding of all linears at these bits."""
    given = {"weight_bits": bits.weights, "activation_bits": bits.activations, **options}
    return QuantizeLinears(**given)  # type: ignore[arg-type]  # options of a dataclass, by name


def linear_names(model: ir.Model) -> tuple[str, ...]:
    """Names of all linears, as the passes know them."""
    found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
    return tuple(label_of(linear.node) for linear in found)


def migration(bits: Bits) -> tuple[AnyPass, ...]:
    """Shift and scale of Outlier Suppression+, thresholds tried on the output of the block behind."""
    tried = {"weight_bits": bits.weights, "activation_bits": bits.activations, "margin": _margin(bits)}
    return (
        ShiftScale(search="output", **tried),  # type: ignore[arg-type]  # options by name
        InsertScale(search="output", **tried),  # type: ignore[arg-type]
    )


INGREDIENTS = ("migration", "search", "plan", "split", "feedback", "margin", "clipping", "columns")
"""What ours is made of, each of which the ablation leaves out once."""


def ours(bits: Bits, without: str = "") -> Recipe | None:
    """What `onnxq optimize` does at 8 bits, and the same with narrower ranges below; less one ingredient.

    Returns:
        None if the ingredient is not in it at these bits.
    """
    few, coarse = bits.activations < 8, bits.weights < 8
    absent = {"margin": few, "clipping": not few, "columns": not coarse}
    if absent.get(without, False):
        return None
    shift = ShiftScale() if without == "search" else migration(bits)[0]
    moved: tuple[Step, ...] = () if without == "migration" else (shift, InsertScale(insert_nodes=False))
    plan = (Planned(bits, split=without != "split"),) if without != "plan" else ()
    rounding = linears(
        bits,
        rounding="nearest" if without == "feedback" else "feedback",
        margin=0.0 if without == "margin" else _margin(bits),
        weight_range="mse" if coarse and without != "columns" else "minmax",
    )
    return Recipe(rounding, (*moved, *plan), clipping=few and without != "clipping")


def _margin(bits: Bits) -> float:
    return MARGIN if bits.activations == 8 else 0.0


def _blocks(bits: Bits) -> Recipe | None:
    """Blocks of 64: their kernels round activations to 8 bits and hold weights of 8 or 4."""
    if bits.activations != 8:
        return None
    return Recipe(QuantizeBlocks(bits=bits.weights, block=64, rounding="feedback", method="mse"))


def _groups(bits: Bits) -> Recipe:
    return Recipe(linears(bits), (PermuteResidual(), SplitGroups(groups=PEG_GROUPS)))


ROWS: Mapping[str, tuple[str, Made]] = {
    "minmax": ("extremes of the calibration data", lambda bits: Recipe(linears(bits))),
    "average": (
        "extremes averaged over samples",
        lambda bits: Recipe(linears(bits, method="average")),
    ),
    "percentile": ("99.99 % of the elements", lambda bits: Recipe(linears(bits, method="percentile"))),
    "mse": ("least squared error of the activation", lambda bits: Recipe(linears(bits, method="mse"))),
    "token-clipping": (
        "token-wise clipping, one share for all",
        lambda bits: Recipe(linears(bits), clipping=True),
    ),
    "fold-gamma": ("gamma migration", lambda bits: Recipe(linears(bits), (FoldGamma(),))),
    "shift-scale": (
        "shift and scale of norms, thresholds in closed form",
        lambda bits: Recipe(linears(bits), (ShiftScale(),)),
    ),
    "shift-scale-output": (
        "the same, thresholds tried on the block's output",
        lambda bits: Recipe(linears(bits), migration(bits)[:1]),
    ),
    "insert-scale": (
        "scale of what no norm gives",
        lambda bits: Recipe(linears(bits), (InsertScale(),)),
    ),
    "split-channels": (
        "outlier channels multiplied in float",
        lambda bits: Recipe(linears(bits), (SplitChannels(),)),
    ),
    "disassemble": (
        "outlier channels as several smaller ones",
        lambda bits: Recipe(linears(bits), (DisassembleChannels(),)),
    ),
    "peg": (f"residual sorted by range, {PEG_GROUPS} equal groups", _groups),
    "groups": (
        "all streams sorted by range, outliers in a group of their own",
        lambda bits: Recipe(linears(bits), (PermuteResidual(scope="all"), SplitGroups())),
    ),
    "per-token": (
        "a scale for each token, while running",
        lambda bits: Recipe(linears(bits), per_token=True),
    ),
    "blocks": ("blocks of 64 for weights and activations, feedback", _blocks),
    "columns": (
        "columns of weights cut for least squared error",
        lambda bits: Recipe(linears(bits, weight_range="mse")),
    ),
    "feedback": ("GPTQ", lambda bits: Recipe(linears(bits, rounding="feedback"))),
    "drop": ("QDrop's objective, layer by layer", lambda bits: Recipe(linears(bits, rounding="drop"))),
    "bias": ("bias correction", lambda bits: Recipe(linears(bits, correct_bias=True))),
    "os": (
        "Outlier Suppression: fold-gamma, token-clipping",
        lambda bits: Recipe(linears(bits), (FoldGamma(),), clipping=True),
    ),
    "os-plus": (
        "Outlier Suppression+: shift and scale everywhere, tried on outputs",
        lambda bits: Recipe(linears(bits), migration(bits)),
    ),
    "os-plus-clipping": (
        "os-plus, token-clipping",
        lambda bits: Recipe(linears(bits), migration(bits), clipping=True),
    ),
    "qllm": (
        "disassemble, weights that make up for rounded activations",
        lambda bits: Recipe(linears(bits, correct_weight=True), (DisassembleChannels(),)),
    ),
    "split-os-plus": (
        "os-plus, split-channels",
        lambda bits: Recipe(linears(bits), (*migration(bits), SplitChannels())),
    ),
    "split-first": (
        "split-channels, os-plus",
        lambda bits: Recipe(linears(bits), (SplitChannels(), *migration(bits))),
    ),
    "ours": ("os-plus, what the planner splits, feedback", ours),
}
"""What each row is, and its passes; None where no kernel can show it at these bits."""

ABLATIONS: Mapping[str, tuple[str, Made]] = {
    f"ours-no-{name}": (f"ours without {name}", lambda bits, name=name: ours(bits, name))  # type: ignore[misc]
    for name in INGREDIENTS
}

ORDER = (
    ("minmax", "percentile"),
    ("percentile", "os"),
    ("minmax", "os"),
    ("os", "os-plus"),
    ("os-plus", "split-os-plus"),
    ("split-os-plus", "split-first"),
    ("disassemble", "qllm"),
    ("peg", "ours"),
    ("qllm", "ours"),
    ("split-os-plus", "ours"),
)
"""Pairs that the papers and this project expect in this order: the second has no larger error."""
