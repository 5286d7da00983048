"""x -> linear(W, b)  =>  (x in blocks of channels) @ H -> linear(H' W in blocks, b)

Every `block` channels are mixed by a Hadamard matrix, and the rows of the weight by its inverse. A number
that towers over the others of its token is spread over its block, so that what sets the range of the token
comes down to a few times its root mean square, whichever channel it was in: evening out or splitting off
channels takes outliers that sit in the same channels of all tokens, this also those that are elsewhere in
each. The hidden tensor of a gated feed-forward block is like that: on SmolLM2-135M a tenth of the error of an
integer product with a scale for each token is left, less than in blocks with scales of their own.

The entries of H and of its inverse are powers of two with a sign, so both are exact; the sum over channels is
taken in another order. All linears that read x share the product, other readers keep x.

Source: QuaRot (arXiv 2404.00456), whose online Hadamard transforms this does in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.errors import UsageProblem
from onnxq.ir.linear import Linear, find_linear, rewrite_linear
from onnxq.ir.mixing import BLOCK, LARGEST, mix_rows, mixing_matrix, only_mixes
from onnxq.ir.precision import fits
from onnxq.ir.walk import producer, rank_of
from onnxq.passes.migrate.rotate_evidence import rotation_examples
from onnxq.passes.migrate.sites import Selection, Sites, sharing_obstacle


@dataclass(frozen=True)
class RotateChannels(Pass):
    """Linear => the same behind a rotation of every few channels, its weight rotated back.

    Attributes:
        block: Channels that are mixed, a power of two.
        sites: "norm" for what norms give, "hidden" for what none gives, or "all".
        only: Names of activations or linears; all if empty.
        skip: Names of activations or linears that are left alone.
        least: Fewest input channels and fewest output columns of a linear that is an integer product.
    """

    block: int = BLOCK
    sites: Sites = "all"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    least: int = 16

    name: ClassVar[str] = "rotate-channels"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=13)

    def __post_init__(self) -> None:
        if not 2 <= self.block <= LARGEST or self.block & (self.block - 1):
            raise UsageProblem(
                f"rotate-channels: block is {self.block}",
                hint=f"It has to be a power of two from 2 to {LARGEST}.",
                slug="bad-setting",
            )

    def match(self, node: ir.Node, context: Context) -> tuple[Linear, ...] | Reject | None:
        """The linears that share an activation of which `node` is the first to read it."""
        linear = find_linear(node)
        if not isinstance(linear, Linear) or only_mixes(linear) or self._is_rotated(linear.activation):
            return linear if isinstance(linear, Reject) else None
        linears = Selection(self.sites, self.only, self.skip, self.least).readers(linear)
        if not linears or linears[0].node is not node:
            return None
        reason = self._obstacle(linears)
        return Reject(reason, str(linear.activation.name)) if reason else linears

    def rewrite(self, found: tuple[Linear, ...], edit: Edit) -> None:
        """Rotate the activation once, and the rows of each weight."""
        activation, near = found[0].activation, found[0].node
        name = str(activation.name)
        matrix = mixing_matrix(self.block).astype(found[0].dtype)
        mixer = edit.constant(matrix, f"{name}_mixer", near=near)
        apart, whole = self._shapes(found[0], edit)
        (blocks,) = edit.insert("Reshape", [activation, apart], before=near, names=[f"{name}_blocks"])
        (mixed,) = edit.insert("MatMul", [blocks, mixer], before=near, names=[f"{name}_mixed"])
        (rotated,) = edit.insert(
            "Reshape", [mixed, whole], before=near, names=[f"{name}_rotated"], like=activation
        )
        for linear in found:
            rewrite_linear(linear, edit, mix_rows(linear.weight, self.block), linear.bias)
            edit.rewire(linear.node, 0, rotated)

    def _shapes(self, linear: Linear, edit: Edit) -> tuple[ir.Value, ir.Value]:
        """The shape of the activation in blocks, and the one that it has, found at run time if need be."""
        activation, near, block = linear.activation, linear.node, self.block
        name, rank = str(activation.name), rank_of(activation)
        cut = [-1, block] if rank is None else [*[0] * (rank - 1), linear.channels // block, block]
        apart = edit.constant(np.array(cut, np.int64), f"{name}_blocks_shape", near=near)
        if rank is None:
            (whole,) = edit.insert("Shape", [activation], before=near, names=[f"{name}_shape"])
        else:
            kept = np.array([*[0] * (rank - 1), linear.channels], np.int64)
            whole = edit.constant(kept, f"{name}_shape", near=near)
        return apart, whole

    def _is_rotated(self, activation: ir.Value) -> bool:
        """Whether `activation` is what this pass made."""
        node = producer(activation, "Reshape")
        return node is not None and node.metadata_props.get("onnxq.pass") == self.name

    def _obstacle(self, linears: tuple[Linear, ...]) -> str:
        first = linears[0]
        if first.channels % self.block:
            return f"{first.channels} channels are not filled by blocks of {self.block}"
        if any(not fits(mix_rows(linear.weight, self.block), linear.dtype) for linear in linears):
            return f"a rotated weight overflows {first.dtype.name}"
        return sharing_obstacle(linears)

    @classmethod
    def examples(cls) -> Examples:
        """Hidden tensors, norms with one reader or several; odd widths, small or widely shared weights."""
        return rotation_examples()
