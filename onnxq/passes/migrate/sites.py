"""Activations whose channels may be parted: who reads them, and whether the options of a pass name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.norm import norm_giving
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.migration import is_widely_shared
from onnxq.passes.migrate.narrow import is_narrow

Sites = Literal["all", "hidden", "norm"]


@dataclass(frozen=True)
class Selection:
    """What a pass may touch.

    Attributes:
        sites: "norm" for what norms give, "hidden" for what none gives, or "all".
        only: Names of activations or linears; all if empty.
        skip: Names of activations or linears that are left alone.
        least: Fewest input channels and fewest output columns of a linear that is an integer product.
    """

    sites: Sites
    only: tuple[str, ...]
    skip: tuple[str, ...]
    least: int

    def takes(self, linear: Linear) -> bool:
        """Whether `linear` may be touched."""
        names = names_of(linear)
        if is_narrow(linear) or min(linear.channels, linear.columns) < self.least or names & {*self.skip}:
            return False
        if self.only and not names & {*self.only}:
            return False
        return self.sites == "all" or (self.sites == "norm") == (norm_giving(linear.activation) is not None)

    def activations(self, model: ir.Model) -> list[ir.Value]:
        """The inputs of all linears that may be touched."""
        found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
        return [linear.activation for linear in found if self.takes(linear)]

    def readers(self, linear: Linear) -> tuple[Linear, ...]:
        """The linears that read what `linear` reads and may be touched, in the order of the graph."""
        return tuple(each for each in _readers(linear) if self.takes(each))


def names_of(linear: Linear) -> set[str]:
    """The names that options may call `linear` by: its own, and that of its activation."""
    return {label_of(linear.node), str(linear.activation.name)}


def sharing_obstacle(linears: tuple[Linear, ...]) -> str:
    """Why the weights of `linears` may not be replaced; "" if they may."""
    shared = any(is_widely_shared(linear) for linear in linears)
    return "the weight of a linear that reads it is shared widely" if shared else ""


def _readers(linear: Linear) -> list[Linear]:
    graph = linear.node.graph
    users = {user for user, index in linear.activation.uses() if index == 0 and user.graph is graph}
    if len(users) == 1 or graph is None:
        return [linear]
    return [each for node in graph if node in users and isinstance(each := find_linear(node), Linear)]
