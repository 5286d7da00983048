"""Which transformer to write: its family, and the spelling of each of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Dims:
    """Sizes of a model.

    Attributes:
        width: Channels of the residual stream.
        heads: Heads of an attention.
        kv_heads: Heads of its keys and values, in decoders.
        hidden: Channels inside a feed-forward.
        layers: Layers of each stack.
        vocabulary: Rows of the embedding.
        batch: Samples, where sizes are fixed.
        length: Tokens, where sizes are fixed.
        positions: Rows of the table of positions.
    """

    width: int = 32
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 64
    layers: int = 2
    vocabulary: int = 37
    batch: int = 2
    length: int = 6
    positions: int = 12


@dataclass(frozen=True)
class Spec:
    """One model. Each field is one of `LEVELS`, but for the last two.

    Attributes:
        family: Which transformer.
        opset: Version of the default operator set.
        dtype: Element type of weights and activations; "float16-widened": float32, of float16 weights.
        norm: Spelling of layer norms, or of RMS norms in the decoder.
        activation: The function in the feed-forwards, and its spelling.
        linear: Spelling of ``x W + b``.
        attention: Spelling from the queries, keys and values to the context; "packed": one linear for all of
            them, and one for both paths of a gated feed-forward.
        mask: What excludes keys: a large negative addend, or a Where.
        sizes: Batch and length fixed; open with zeros in Reshapes; open and computed by Shape.
        constants: Whether constants are initializers or nodes.
        shared: What several layers read: nothing; one γ and β for all norms; all weights of a layer; the
            embedding as head.
        bias: Whether linears have one.
        described: Whether inner values have types and shapes.
        gamma: What is odd about the scales of the norms.
        outliers: Where a few channels tower over the others.
        head: What the model gives: the states, the linear of the first token, scores for each token, or
            states and first token.
        clutter: What exporters leave behind: nothing; Identity, Dropout, norms computed in float32.
        seed: Of all numbers.
        dims: Sizes.
    """

    family: str = "post-encoder"
    opset: int = 18
    dtype: str = "float32"
    norm: str = "script"
    activation: str = "erf"
    linear: str = "matmul"
    attention: str = "script"
    mask: str = "additive"
    sizes: str = "zeros"
    constants: str = "initializers"
    shared: str = "nothing"
    bias: bool = True
    described: bool = True
    gamma: str = "ordinary"
    outliers: str = "nowhere"
    head: str = "states"
    clutter: str = "nothing"
    seed: int = 0
    dims: Dims = Dims()

    @property
    def float_type(self) -> np.dtype:
        """Element type of weights and activations."""
        return np.dtype("float16" if self.dtype == "float16" else "float32")

    @property
    def is_mild(self) -> bool:
        """Whether outliers are small enough for half precision to say something."""
        return self.dtype != "float32"

    @property
    def twin(self) -> Spec:
        """The same model, computed in float32."""
        return replace(self, dtype="float16-widened" if self.dtype == "float16" else self.dtype)

    @property
    def is_rms(self) -> bool:
        """Whether norms are RMS norms."""
        return self.family == "decoder"

    def __str__(self) -> str:
        told = {name: value for name, value in asdict(self).items() if name not in ("dims", "bias")}
        told |= {
            "bias": "bias" if self.bias else "no-bias",
            "described": "typed" if self.described else "bare",
        }
        return "-".join(str(value) for value in told.values())


LEVELS: Mapping[str, tuple[object, ...]] = {
    "family": ("post-encoder", "pre-encoder", "decoder", "post-crossed", "pre-crossed", "vision"),
    "opset": tuple(range(13, 24)),
    "dtype": ("float32", "float32", "float16"),
    "norm": ("script", "recomputed", "operator", "tensorflow", "simplified", "skip"),
    "activation": ("erf", "erf-scaled", "tanh", "gelu", "contrib-gelu", "silu", "contrib-silu", "relu"),
    "linear": ("matmul", "bias-first", "flattened", "gemm", "gemm-transposed", "transposed", "contrib"),
    "attention": ("script", "guarded", "packed", "operator", "contrib"),
    "mask": ("additive", "where"),
    "sizes": ("fixed", "zeros", "computed"),
    "constants": ("initializers", "nodes"),
    "shared": ("nothing", "norms", "layers", "tied"),
    "bias": (True, False),
    "described": (True, False),
    "gamma": ("ordinary", "ones", "tiny", "zero", "negative", "huge"),
    "outliers": ("nowhere", "residual", "hidden"),
    "head": ("states", "first", "scores", "both"),
    "clutter": ("nothing", "exporter"),
}
"""What each field may be."""


def is_possible(spec: Spec) -> bool:
    """Whether the operators of the spec exist in its opset, and its parts go together."""
    operator_since = 23 if spec.is_rms else 17
    return all(
        (
            spec.norm not in ("operator", "skip") or spec.opset >= operator_since or spec.norm == "skip",
            spec.norm != "tensorflow" or not spec.is_rms,
            spec.norm != "simplified" or spec.is_rms,
            spec.activation != "gelu" or spec.opset >= 20,
            spec.attention != "operator" or spec.opset >= 23,
            spec.shared != "tied" or (spec.head == "scores" and spec.family != "vision"),
            spec.family != "vision" or spec.mask == "additive",  # there is none
        )
    )
