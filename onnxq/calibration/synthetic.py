"""Random data, for trying things out. Ranges learnt from it mean nothing, so it has to be asked for by name.

Floats are standard normal; token numbers are drawn from the rows of the table that they index; masks are
ones, token types zeros, positions count up. Unknown axes: the first is the batch, pixels and sequence lengths
come from the options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.calibration.arrays import stacked
from onnxq.calibration.inputs import Array, InputSpec, fixed_batch
from onnxq.calibration.source import DataOptions, DataSource, Item, digest_of, make_source
from onnxq.errors import CalibrationError


@dataclass(frozen=True)
class RandomReader:
    """Samples drawn from a seed and their own index, so that any of them can be drawn again."""

    specs: tuple[InputSpec, ...]
    tables: Mapping[str, int] = field(repr=False)
    options: DataOptions = field(repr=False)
    origin: str = "random data"
    preparation: str = "random"
    uniform: bool = True

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Samples by ascending index."""
        for index in indices:
            generator = np.random.default_rng((self.options.seed, index))
            yield {spec.name: self._draw(spec, generator) for spec in self.specs}

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """A batch."""
        return stacked(items, batched=True)

    def _draw(self, spec: InputSpec, generator: np.random.Generator) -> Array:
        shape = sample_shape(spec, self.options)
        if spec.dtype.kind == "b" or "mask" in spec.name:
            return np.ones(shape, dtype=spec.dtype)
        if spec.dtype.kind in "iu":
            if "position" in spec.name and shape:
                return np.broadcast_to(np.arange(shape[-1]), shape).astype(spec.dtype)
            table = 1 if "type" in spec.name else self.tables.get(spec.name, 2)
            return generator.integers(0, table, shape).astype(spec.dtype)
        return generator.standard_normal(shape).astype(spec.dtype)


def open_random(model: ir.Model, specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    """A source of random samples in the shapes of the model's inputs.

    Raises:
        CalibrationError: An input has no known number of axes, or holds strings.
    """
    strange = [spec for spec in specs if not spec.shape or spec.dtype == object]
    if strange:
        raise CalibrationError(
            f"cannot make random data for {', '.join(map(str, strange))}",
            hint="give real data",
            slug="no-random-data",
        )
    reader = RandomReader(specs, _tables(model), options)
    items = [Item(digest_of(dict(sample))) for sample in reader.read(range(options.samples))]
    fixed = fixed_batch(specs)
    return make_source(
        reader, specs, items, options, batch_size=fixed or options.batch_size, whole_batches=fixed is not None
    )


def sample_shape(spec: InputSpec, options: DataOptions) -> tuple[int, ...]:
    """Shape of one sample, without the batch axis."""
    shape = spec.shape or ()
    pixels = options.image_size or 224
    unknown = (
        [0, 3, pixels, pixels]
        if len(shape) == 4 and spec.dtype.kind != "i"
        else [options.max_length] * len(shape)
    )
    return tuple(
        dim if isinstance(dim, int) else options.sizes.get(dim or "", unknown[axis])
        for axis, dim in enumerate(shape)
        if axis > 0
    )


def _tables(model: ir.Model) -> dict[str, int]:
    """Rows of the table that an integer input indexes, where it goes straight into a Gather."""
    tables = {}
    for value in model.graph.inputs:
        for node in _readers(value):
            table = node.inputs[0]
            if (
                node.op_type == "Gather"
                and table is not None
                and table.const_value is not None
                and table.shape
            ):
                tables[value.name or ""] = int(table.const_value.shape.numpy()[0])
    return tables


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    for node, _ in value.uses():
        if node.op_type in ("Cast", "Identity"):
            yield from _readers(node.outputs[0])
        else:
            yield node
