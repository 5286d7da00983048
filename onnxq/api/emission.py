"""Which passes turn a plan into what a target runs: migration, spelling, rounding, conversion.

What a target wants is data (`onnxq.targets`); what the user wants is data (`OptimizeSettings`). Here the two
become the settings of passes and of the planner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxq.api.ranges import Ranges
from onnxq.contract import AnyPass
from onnxq.errors import UsageProblem
from onnxq.passes.clean.drop_unused import DropUnused
from onnxq.passes.clean.infer_shapes import InferShapes
from onnxq.passes.clean.raise_opset import RaiseOpset
from onnxq.passes.clean.share_constants import ShareConstants
from onnxq.passes.compress.convert_half import ConvertHalf
from onnxq.passes.compress.half_operators import HALF_SCALES
from onnxq.passes.layout import Audience, finishing, respelling
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.search import Search
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.quantize import linears
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.bound_mask import BoundMask
from onnxq.passes.quantize.convolutions import QuantizeConvs
from onnxq.passes.quantize.embeddings import QuantizeEmbeddings
from onnxq.passes.quantize.fitting import Rounding
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.passes.quantize.products import QuantizeProducts
from onnxq.passes.quantize.weights import WeightRange
from onnxq.planning.layers import Plan
from onnxq.planning.options import BLOCK, Form
from onnxq.planning.settings import BYTES_EXCHANGE, EXCHANGE, PlanSettings, TrialSettings
from onnxq.recipe import OptimizeSettings
from onnxq.targets import Target

_SEARCH: dict[str, Search] = {"fast": "closed", "balanced": "output", "best": "output"}
"""Looking through attention changes the choice little on the models measured, and takes the longest."""
_ROWS = {"fast": 256, "balanced": 512, "best": 1024}


@dataclass(frozen=True)
class Fitting:
    """How the weights of linears are made; see `QuantizeLinears`.

    Attributes:
        weight_range: How the scale of a column is chosen.
        rounding: How codes are.
        correct_weight: Whether weights first make up for the rounding of activations.
        rank: Rank of that correction at most; 0 for any.
        on_grid: Linears whose codes were learned: their weights lie on the grid of their column, whose
            largest element has the largest code, so that rounding to nearest gives the codes back.
    """

    weight_range: WeightRange = "minmax"
    rounding: Rounding = "feedback"
    correct_weight: bool = False
    rank: int = 0
    on_grid: tuple[str, ...] = ()


PLAIN = Fitting()
"""As every effort starts."""


@dataclass(frozen=True)
class Emission:
    """What a target and a user together ask of the passes.

    Attributes:
        target: The processor.
        settings: What the user wants.
    """

    target: Target
    settings: OptimizeSettings

    def __post_init__(self) -> None:
        if self.settings.weights == "int4" and 4 not in self.target.block_bits:
            raise UsageProblem(
                f"{self.target.name} has no products with 4-bit weights in blocks",
                hint="A target with kernels, or --weights int8.",
                slug="int4-as-qdq",
            )

    @property
    def form(self) -> linears.Form:
        """Plain Q/DQ if the user or the target wants it."""
        return "qdq" if "qdq" in (self.settings.format, self.target.format) else "kernel"

    @property
    def counts_bytes(self) -> bool:
        """Whether plans are about bytes rather than time, weights alone being quantized."""
        return self.settings.weights == "int4" or self.target.format == "weight-only"

    @property
    def evens_out(self) -> bool:
        """Whether a Mul that evens channels out is worth trying whatever the effort.

        Compiled runtimes fuse it with the rounding behind it.
        """
        return self.settings.effort == "best" or self.target.provider in ("openvino", "tensorrt")

    def plan_settings(self, rows: Mapping[str, tuple[int, ...]] | None = None) -> PlanSettings:
        """What bears on the choice of a form for each linear; `rows` as in `PlanSettings`.

        No Mul may even channels out: see `evens_out` for where a plan with such is tried besides.
        """
        return PlanSettings(
            target=self.target,
            insert_nodes=False,
            keep_float=self.settings.keep_float,
            forms=self._forms(),
            rows=rows or {},
            count="bytes" if self.counts_bytes else "time",
            exchange=BYTES_EXCHANGE if self.counts_bytes else EXCHANGE,
            trial=TrialSettings(rows=_ROWS[self.settings.effort]),
        )

    def opening(self) -> tuple[AnyPass, ...]:
        """What comes before everything else: the operator set in which Q/DQ take float16."""
        wanted = self.target.float_type == "float16" and self.form == "qdq"
        return (RaiseOpset(to=HALF_SCALES),) if wanted else ()

    def migrating(self) -> tuple[AnyPass, ...]:
        """Exact passes that even channels out, as integer products with one scale a tensor need it.

        Blocks have scales enough, and 4 bits would feel what migration adds to the weights.
        """
        if self.counts_bytes:
            return ()
        search = _SEARCH[self.settings.effort]
        keep = self.form == "kernel"
        return (ShiftScale(search=search, keep_tied=keep), InsertScale(insert_nodes=False))

    def preparing(self, plan: Plan) -> tuple[AnyPass, ...]:
        """Exact passes that a plan asks for, then the spellings that the runtime executes fastest."""
        return (*plan.exact_passes(), *respelling(self._audience))

    def bounding(self) -> BoundMask | None:
        """What keeps denormal numbers out of attention, if hidden keys stay hidden with it."""
        return BoundMask() if self.form == "kernel" else None

    def quantizing(self, plan: Plan, ranges: Ranges, fitting: Fitting = PLAIN) -> tuple[AnyPass, ...]:
        """Everything that rounds, and what is re-spelled or converted behind it."""
        eight, four = plan.names("int8 blocks"), plan.names("int4 blocks")
        blocks = QuantizeBlocks(
            block=BLOCK, rounding="feedback", float_activations=self.target.activation_type is None
        )
        own: list[AnyPass] = []
        if eight:
            own.append(replace(blocks, only=eight, method="mse"))
        if four:
            own.append(replace(blocks, only=four, bits=4, symmetric=False, method="weighted"))
        embeddings = QuantizeEmbeddings(skip=self.settings.keep_float)
        finish = finishing(self._audience)
        linears = () if self.target.format == "weight-only" else self.fitted(plan, ranges, fitting)
        products = self._products(ranges)
        return (*linears, *self._convolutions(ranges), *products, *own, embeddings, *finish)

    def converting(self) -> tuple[AnyPass, ...]:
        """What turns the quantized model into the float type of the target."""
        if self.target.float_type == "float32":
            return ()
        half = ConvertHalf(keep=self.target.float_kept, skip=self.settings.keep_float)
        return (InferShapes(), half, ShareConstants(), DropUnused())

    def fitted(self, plan: Plan, ranges: Ranges, fitting: Fitting) -> tuple[QuantizeLinears, ...]:
        """Integer products whose weights are made in this way."""
        every = replace(
            self.linears(plan, ranges),
            weight_range=fitting.weight_range,
            rounding=fitting.rounding,
            correct_weight=fitting.correct_weight,
            rank=fitting.rank,
        )
        if not fitting.on_grid:
            return (every,)
        learned = replace(self.linears(plan, ranges), rounding="nearest", only=fitting.on_grid)
        return (learned, replace(every, skip=(*every.skip, *fitting.on_grid)))

    def linears(self, plan: Plan, ranges: Ranges) -> QuantizeLinears:
        """Integer products with one scale for the activation."""
        return QuantizeLinears(
            form=self.form,
            method=ranges.method,
            margin=ranges.margin,
            ranges=ranges.given,
            activation=self.target.activation_codes,
            weight_bits=self.target.weight_bits,
            float_bias=self._is_compiled,
            float_tables=self.settings.keep_float,
            rounding="feedback",
            correct_bias=True,
            skip=(*plan.names("float"), *plan.names("int8 blocks"), *plan.names("int4 blocks")),
            per_token=plan.names("int8 per-token"),
        )

    def trial_linears(self, plan: Plan, ranges: Ranges) -> QuantizeLinears:
        """The same, weights to their nearest codes: as good a trial of ranges, and a tenth of the time."""
        return replace(self.linears(plan, ranges), rounding="nearest", correct_bias=False)

    @property
    def _audience(self) -> Audience:
        if self.target.format == "weight-only":
            return "fusing"
        if self.form == "kernel":
            return "kernels"
        return "compiled" if self._is_compiled else "standard"

    @property
    def _is_compiled(self) -> bool:
        return self.form == "qdq" and self.target.provider in ("openvino", "tensorrt")

    def _convolutions(self, ranges: Ranges) -> tuple[AnyPass, ...]:
        """Integer convolutions where the target has the kernel: they lose far less than linears do."""
        if self.form != "kernel" or self.settings.weights == "int4" or self.target.activation_type != "uint8":
            return ()
        keep = self.settings.keep_float
        return (QuantizeConvs(margin=ranges.blind, weight_bits=self.target.weight_bits, skip=keep),)

    def _products(self, ranges: Ranges) -> tuple[AnyPass, ...]:
        if not self.target.quantized_attention:
            return ()
        signed = self.target.activation_type == "int8"
        return (QuantizeProducts(signed=signed, margin=ranges.blind, skip=self.settings.keep_float),)

    def _forms(self) -> tuple[Form, ...]:
        if self.settings.weights == "int4":
            return ("int4 blocks", "int8 blocks", "float")
        if self.target.format == "weight-only":
            return ("int8 blocks", "float")
        if self.form == "kernel":
            return ("int8 static", "int8 per-token", "int8 blocks", "float")
        return ("int8 static", "float")
