"""What an option loses: each linear's own output on real rows of its input, against the float product.

The rounding of the activation and that of the weight are measured apart and their energies added: rounding
with feedback later takes most of the weight's part away, which `TrialSettings.weight_noise` foretells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from onnxq.ir.mixing import BLOCK as MIXED
from onnxq.ir.mixing import mix_channels, mix_rows
from onnxq.passes.migrate.copies import Rules, choose_copies
from onnxq.passes.migrate.outliers import Product, choose_channels, rank_channels, side_by_side
from onnxq.passes.migrate.places import Place
from onnxq.passes.migrate.scales import choose_scale
from onnxq.passes.migrate.token_scale import TokenObjective
from onnxq.passes.quantize.block_codes import block_grid, round_activations
from onnxq.passes.quantize.ranges import PerToken, params_for
from onnxq.passes.quantize.rounding import round_nearest
from onnxq.passes.quantize.weights import quantize_weight
from onnxq.planning.groups import Group, is_shared
from onnxq.planning.options import BLOCK, Option
from onnxq.planning.settings import PlanSettings
from onnxq.statistics.moments import counted_energy

MOST_COLUMNS = 2048
"""Columns of a weight that are looked at; of a vocabulary's 50,000 a part tells the same."""
NOTICEABLE = 1.02
"""How uneven channels must be to be evened out at all."""
MOST_SPLIT = 15


class Trial:
    """The linears of one group in float, and what each option makes of them."""

    def __init__(self, group: Group, settings: PlanSettings) -> None:
        """Compute the exact outputs.

        Raises:
            ValueError: Calibration kept no rows or no channels of the activation.
        """
        seen = group.seen
        if seen.rows is None or seen.channel is None or not len(seen.rows.values):
            raise ValueError(f"no rows of {group.activation.name!r}")
        self.group, self.settings = group, settings
        self.rows = seen.rows.values[: settings.trial.rows]
        self.low, self.high = seen.channel.low, seen.channel.high
        self.weights = [_some_columns(linear.weight) for linear in group.linears]
        self.exact = [self.rows @ weight for weight in self.weights]

    @cached_property
    def shares_table(self) -> bool:
        """Whether an embedding can read the weight, too, in a form that there is."""
        return "int8 blocks" in self.settings.forms and is_shared(self.group)

    @cached_property
    def product(self) -> Product:
        """The products of the group as one, for the choice of channels."""
        return Product(self.low, self.high, side_by_side(self.weights))

    def channels(self, count: int) -> np.ndarray:
        """The `count` channels that leave first, int64."""
        return rank_channels(self.product, count) if count else np.zeros(0, np.int64)

    def counts(self) -> tuple[int, ...]:
        """Numbers of channels worth trying to split off, from none stood out (empty) to two."""
        limit = min(MOST_SPLIT, self.group.channels // 8)
        choice = choose_channels(self.product, limit)
        best = len(choice.channels)
        return tuple(sorted({best, max(1, best // 2)})) if best and choice.gain > NOTICEABLE else ()

    @cached_property
    def copies(self) -> np.ndarray:
        """Into how many copies each channel goes where outliers are copied, int64 [K]."""
        chosen = choose_copies(self.product, Rules())
        return chosen.counts if chosen.gain > NOTICEABLE else np.ones_like(chosen.counts)

    def errors(self, option: Option) -> tuple[float, ...]:
        """Noise over signal of each linear's own output, every token weighing the same.

        A few massive tokens hold most of the energy; weighed by energy, the others could be lost unseen.
        """
        if option.form == "float":
            return (0.0,) * len(self.weights)
        split = self.channels(option.split)
        weights = [_without(weight, split) for weight in self.weights]
        scale = self._scale_for(option, weights, split)
        rows = (self.rows / scale).astype(np.float32)
        if option.rotated:
            rows = mix_channels(rows, MIXED)
        noise = self._activation_noise(rows, scale, split, option)
        if option.copied:  # all copies of a channel round alike, and their sum meets the weight as it was
            rows, noise, scale = self.rows, noise * scale, np.ones_like(scale)
        found = []
        for weight, exact in zip(weights, self.exact, strict=True):
            moved = (weight * scale[:, None]).astype(np.float32)
            if option.rotated:
                moved = mix_rows(moved, MIXED).astype(np.float32)
            from_activation = noise @ moved
            from_weight = rows @ (self._rounded(moved, option) - moved)
            found.append(_relative(self._energy(from_activation, from_weight), exact))
        return tuple(found)

    def _energy(self, from_activation: np.ndarray, from_weight: np.ndarray) -> np.ndarray:
        """Squared error of each token, as much of the weight's as feedback will leave."""
        energy: np.ndarray = np.square(from_activation).sum(axis=1, dtype=np.float64)
        energy += self.settings.trial.weight_noise * np.square(from_weight).sum(axis=1, dtype=np.float64)
        return energy

    def unevenness(self) -> float:
        """The largest scale that evening out would use; 1 for even channels."""
        return float(self._scale(self.weights, np.zeros(0, np.int64)).max(initial=1.0))

    @cached_property
    def _token_scale(self) -> np.ndarray:
        columns = self.group.place.columns if isinstance(self.group.place, Place) else None
        return TokenObjective(self.rows, self.weights, columns).scale()

    def _scale_for(self, option: Option, weights: Sequence[np.ndarray], split: np.ndarray) -> np.ndarray:
        """What each channel is divided by before it is rounded [K]."""
        if option.copied:
            return self.copies.astype(np.float32)
        if not option.scaled:
            return np.ones(self.low.shape)
        return self._scale(weights, split) if option.form == "int8 static" else self._token_scale

    def _scale(self, weights: Sequence[np.ndarray], split: np.ndarray) -> np.ndarray:
        low, high = self.low.copy(), self.high.copy()
        low[split] = high[split] = 0.0
        return choose_scale(low, high, weights)

    def _activation_noise(
        self, rows: np.ndarray, scale: np.ndarray, split: np.ndarray, option: Option
    ) -> np.ndarray:
        """What rounding adds to the activation [R, K]."""
        if option.form == "int8 per-token":
            return np.asarray(PerToken(self.settings.trial.activation_bits).apply(rows) - rows)
        if option.form in ("int8 blocks", "int4 blocks"):
            return np.asarray(round_activations(rows, BLOCK) - rows)
        low, high = self.low / scale, self.high / scale
        low[split] = high[split] = 0.0
        widened = 1 + self.settings.margin
        bits = self.settings.trial.activation_bits
        params = params_for(float(low.min()) * widened, float(high.max()) * widened, bits)
        noise: np.ndarray = params.apply(rows) - rows
        noise[:, split] = 0.0
        return noise

    def _rounded(self, weight: np.ndarray, option: Option) -> np.ndarray:
        if option.form == "int4 blocks":
            grid = block_grid(weight, 4, BLOCK, symmetric=False)
            return grid.values(round_nearest(weight, grid)).astype(np.float32)
        if option.form != "int8 blocks":
            return quantize_weight(weight, self.settings.target.weight_bits).values
        return round_activations(weight.T, BLOCK).T  # 8 bits around zero are the same for both


def _without(weight: np.ndarray, channels: np.ndarray) -> np.ndarray:
    if not len(channels):
        return weight
    left = weight.copy()
    left[channels] = 0.0
    return left


def _some_columns(weight: np.ndarray) -> np.ndarray:
    step = -(-weight.shape[1] // MOST_COLUMNS)
    return np.ascontiguousarray(weight[:, ::step], dtype=np.float32)


def _relative(noise: np.ndarray, exact: np.ndarray) -> float:
    return float((noise / counted_energy(np.square(exact).sum(axis=1, dtype=np.float64))).mean())
