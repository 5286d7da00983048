"""The methods that `benchmarks.methods` compares, as lists of passes: exact ones first, then the rounding.

Every row rounds the same products, those of an activation and a constant, and nothing else; embeddings,
convolutions and products of two activations stay float. Rows without a word on ranges take extremes, and
rows without a word on weights their nearest codes, one scale for each output column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.learned import Learned
from benchmarks.planned import EIGHT_BIT_FORMS, Bits, Planned, Upstream, margin_for, migrating
from onnxq.contract import AnyPass
from onnxq.passes.compress.assemble_channels import AssembleChannels
from onnxq.passes.migrate.disassemble_channels import DisassembleChannels
from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.permute_residual import PermuteResidual
from onnxq.passes.migrate.rotate_channels import RotateChannels
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.migrate.split_channels import SplitChannels
from onnxq.passes.migrate.split_groups import SplitGroups
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.linears import QuantizeLinears

MARGIN = 0.1
"""Part by which ranges are wider where Outlier Suppression+ tries thresholds at 8 bits."""
PEG_GROUPS = 6
"""Groups of channels of equal size: what the paper takes for BERT."""
RANK = 4
"""Rank of the corrections of weights: what QLLM takes."""
EVENED = (
    ShiftScale(search="token", shift=False, insert_nodes=False),
    InsertScale(search="token", shift=False, insert_nodes=False),
)
"""What the planner asks for where a scale is found for each token."""
BITS: Mapping[str, Bits] = {str(each): each for each in (Bits(8, 8), Bits(6, 6), Bits(4, 8), Bits(4, 4))}
Step = AnyPass | Planned | Upstream


@dataclass(frozen=True)
class Recipe:
    """One row of the table, at some bits.

    Attributes:
        rounding: The lossy pass; a plan among the exact steps gives some linears other forms.
        exact: What runs before it.
        clipping: Whether ranges are then clipped token-wise, judged by the model's output.
        per_token: Whether every activation gets a scale for each token, found while the model runs.
        learned: What is learned with gradients before rounding; None for nothing.
    """

    rounding: QuantizeLinears | QuantizeBlocks
    exact: tuple[Step, ...] = ()
    clipping: bool = False
    per_token: bool = False
    learned: Learned | None = None


Made = Callable[[Bits], Recipe | None]


def linears(bits: Bits, **options: object) -> QuantizeLinears:
    """Rounding of all linears at these bits."""
    given = {"weight_bits": bits.weights, "activation_bits": bits.activations, **options}
    return QuantizeLinears(**given)  # type: ignore[arg-type]  # options of a dataclass, by name


def reckoned(kind: Callable[..., AnyPass], bits: Bits) -> AnyPass:
    """A pass that chooses what to move by these bits."""
    return kind(weight_bits=bits.weights, activation_bits=bits.activations)


def migration(bits: Bits) -> tuple[AnyPass, ...]:
    """Shift and scale of Outlier Suppression+, thresholds tried on the output of the block behind."""
    margin = MARGIN if bits.activations == 8 else 0.0
    tried = {"weight_bits": bits.weights, "activation_bits": bits.activations, "margin": margin}
    return (
        ShiftScale(search="output", **tried),  # type: ignore[arg-type]  # options by name
        InsertScale(search="output", **tried),  # type: ignore[arg-type]
    )


INGREDIENTS = (
    *("migration", "search", "plan", "effects", "split", "per-token", "blocks"),
    *("feedback", "bias", "margin", "clipping", "columns"),
)
"""What ours is made of, each of which the ablation leaves out once."""
_FORMS = {"per-token": "int8 per-token", "blocks": "int8 blocks"}


def ours(bits: Bits, without: str = "") -> Recipe | None:
    """What `onnxq optimize` does at these bits, or the same with narrower ranges; less one ingredient.

    Returns:
        None if the ingredient is not in it at these bits.
    """
    made = _ours(bits, without)
    return None if without and made == _ours(bits, "") else made


def most_accurate(bits: Bits) -> Recipe | None:
    """The same with the last plan of its front: what `--min-fidelity` goes towards, whatever it takes.

    Returns:
        None for blocks of 4 bits, which that plan has none of any more.
    """
    if bits.are_blocks:
        return None
    made = _ours(bits, "")
    steps = tuple(replace(each, last=True) if isinstance(each, Planned) else each for each in made.exact)
    return replace(made, exact=steps)


def _ours(bits: Bits, without: str) -> Recipe:
    moved: tuple[Step, ...] = () if without == "migration" else migrating(bits)
    if without == "search":
        moved = tuple(
            replace(each, search="closed") if isinstance(each, ShiftScale) else each for each in moved
        )
    form = _FORMS.get(without, "")
    less = form if _offers(bits, form) else ""
    plan = Planned(bits, split=without != "split", without=less, effects=without != "effects")
    steps = (*moved, *(() if without == "plan" else (plan,)))
    feedback: Literal["nearest", "feedback"] = "nearest" if without == "feedback" else "feedback"
    if bits.are_blocks:
        four = QuantizeBlocks(bits=4, symmetric=False, method="weighted", rounding=feedback)
        return Recipe(four, steps)
    narrow = bits.activations < 8
    rounding = linears(
        bits,
        rounding=feedback,
        correct_bias=without != "bias",
        margin=0.0 if without == "margin" else margin_for(bits),
        weight_range="mse" if bits.weights < 8 and without != "columns" else "minmax",
    )
    return Recipe(rounding, steps, clipping=narrow and without != "clipping")


def _offers(bits: Bits, form: str) -> bool:
    """Whether the planner has that form at these bits."""
    return (
        form in EIGHT_BIT_FORMS if bits.are_blocks else bits.activations == 8 or form not in EIGHT_BIT_FORMS
    )


def _blocks(bits: Bits) -> Recipe | None:
    """Blocks of 64: their kernels round activations to 8 bits and hold weights of 8 or 4."""
    if bits.activations != 8:
        return None
    return Recipe(QuantizeBlocks(bits=bits.weights, block=64, rounding="feedback", method="mse"))


def _plain_blocks(bits: Bits) -> Recipe | None:
    """The same, each weight to its nearest code."""
    return Recipe(QuantizeBlocks(bits=bits.weights, block=64)) if bits.activations == 8 else None


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
        lambda bits: Recipe(linears(bits), (reckoned(ShiftScale, bits),)),
    ),
    "shift-scale-output": (
        "the same, thresholds tried on the block's output",
        lambda bits: Recipe(linears(bits), migration(bits)[:1]),
    ),
    "shift-scale-upstream": (
        "the same, tried on what rounded linears above make of the activations",
        lambda bits: Recipe(linears(bits), (Upstream(migration(bits)[0], linears(bits)),)),
    ),
    "insert-scale": (
        "scale of what no norm gives",
        lambda bits: Recipe(linears(bits), (reckoned(InsertScale, bits),)),
    ),
    "split-channels": (
        "outlier channels multiplied in float",
        lambda bits: Recipe(linears(bits), (reckoned(SplitChannels, bits),)),
    ),
    "disassemble": (
        "outlier channels as several smaller ones",
        lambda bits: Recipe(linears(bits), (reckoned(DisassembleChannels, bits),)),
    ),
    "peg": (f"residual sorted by range, {PEG_GROUPS} equal groups", _groups),
    "groups": (
        "all streams sorted by range, outliers in a group of their own",
        lambda bits: Recipe(linears(bits), (PermuteResidual(scope="all"), reckoned(SplitGroups, bits))),
    ),
    "per-token": (
        "a scale for each token, while running",
        lambda bits: Recipe(linears(bits), per_token=True),
    ),
    "token-scale": (
        "channels evened out for scales by token, where that is free; a scale for each token",
        lambda bits: Recipe(linears(bits), EVENED, per_token=True),
    ),
    "rotate": (
        "every 32 channels mixed, a scale for each token",
        lambda bits: Recipe(linears(bits), (RotateChannels(),), per_token=True),
    ),
    "rotate-static": (
        "every 32 channels mixed, one range for all tokens",
        lambda bits: Recipe(linears(bits), (RotateChannels(),)),
    ),
    "token-scale-rotate": (
        "both: evened out, mixed, a scale for each token",
        lambda bits: Recipe(linears(bits), (*EVENED, RotateChannels()), per_token=True),
    ),
    "quarot": (
        "QuaRot: rotate, a scale for each token, GPTQ",
        lambda bits: Recipe(linears(bits, rounding="feedback"), (RotateChannels(),), per_token=True),
    ),
    "blocks": ("blocks of 64 for weights and activations, feedback", _blocks),
    "plain-blocks": ("the same, nearest codes", _plain_blocks),
    "columns": (
        "columns of weights cut for least squared error",
        lambda bits: Recipe(linears(bits, weight_range="mse")),
    ),
    "feedback": ("GPTQ", lambda bits: Recipe(linears(bits, rounding="feedback"))),
    "drop": ("QDrop's objective, layer by layer", lambda bits: Recipe(linears(bits, rounding="drop"))),
    "low-rank": (
        f"weights that make up for rounded activations, by rank {RANK}",
        lambda bits: Recipe(linears(bits, correct_weight=True, rank=RANK)),
    ),
    "bias": ("bias correction", lambda bits: Recipe(linears(bits, correct_bias=True))),
    "learned-steps": (
        "ranges learned on the model's output (LSQ)",
        lambda bits: Recipe(linears(bits), learned=Learned("steps", bits)),
    ),
    "learned-rounding": (
        "codes and ranges learned block by block (QDrop)",
        lambda bits: Recipe(linears(bits), learned=Learned("rounding", bits)),
    ),
    "learned-low-rank": (
        f"corrections of rank {RANK} learned on blocks (QLLM)",
        lambda bits: Recipe(linears(bits), learned=Learned("low-rank", bits, rank=RANK)),
    ),
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
        lambda bits: Recipe(linears(bits, correct_weight=True), (reckoned(DisassembleChannels, bits),)),
    ),
    "assemble": (
        "qllm, like channels merged until no product is wider",
        lambda bits: Recipe(
            linears(bits, correct_weight=True),
            (reckoned(DisassembleChannels, bits), AssembleChannels(tolerance=1.0)),
        ),
    ),
    "split-os-plus": (
        "os-plus, split-channels",
        lambda bits: Recipe(linears(bits), (*migration(bits), reckoned(SplitChannels, bits))),
    ),
    "split-first": (
        "split-channels, os-plus",
        lambda bits: Recipe(linears(bits), (reckoned(SplitChannels, bits), *migration(bits))),
    ),
    "ours": ("what `onnxq optimize` does: shift and scale of norms, its plan, feedback, bias", ours),
    "ours-accurate": ("the same with the most accurate of its plans", most_accurate),
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
    ("per-token", "rotate"),
    ("rotate", "quarot"),
    ("quarot", "ours-accurate"),
    ("ours", "ours-accurate"),
    ("peg", "ours"),
    ("qllm", "ours"),
    ("split-os-plus", "ours"),
)
"""Pairs that the papers and this project expect in this order: the second has no larger error."""
