"""Tiny transformers with random weights, as torch's two exporters write them.

``python tests/ir/exported.py`` writes what the dynamo exporter makes of them into ``exports/``.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, INNER = 16, 4, 24


class Attention(nn.Module):
    """Attention with its own products and softmax; keys and values may come from another sequence."""

    def __init__(self, kv_heads: int = HEADS, bias: bool = True) -> None:
        super().__init__()
        self.kv_heads, self.size = kv_heads, WIDTH // HEADS
        self.query = nn.Linear(WIDTH, WIDTH, bias)
        self.key = nn.Linear(WIDTH, kv_heads * self.size, bias)
        self.value = nn.Linear(WIDTH, kv_heads * self.size, bias)
        self.out = nn.Linear(WIDTH, WIDTH, bias)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1, self.size).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (
            self.split(self.query(x)),
            self.split(self.key(memory)),
            self.split(self.value(memory)),
        )
        scores = query @ key.transpose(-1, -2) / self.size**0.5
        if mask is not None:
            scores = scores + mask
        context = functional.dropout(scores.softmax(-1), 0.1, self.training) @ value
        return self.out(context.transpose(1, 2).reshape(x.shape[0], x.shape[1], WIDTH))


class Encoder(nn.Module):
    """Two layers in the manner of BERT (norms behind the residual additions) or ViT (before the branches)."""

    def __init__(self, pre: bool, approximate: str = "none") -> None:
        super().__init__()
        self.pre = pre
        self.embedding = nn.Embedding(30, WIDTH)
        self.attentions = nn.ModuleList(Attention() for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.ups = nn.ModuleList(nn.Linear(WIDTH, INNER) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(INNER, WIDTH) for _ in range(2))
        self.gelu = nn.GELU(approximate)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(tokens)
        mask = (1.0 - mask[:, None, None, :]) * -10000.0
        if not self.pre:
            x = self.norms[4](x)
        for i in range(2):
            first, second = self.norms[2 * i], self.norms[2 * i + 1]
            if self.pre:
                normed = first(x)
                x = x + self.attentions[i](normed, normed, mask)
                x = x + self.downs[i](self.gelu(self.ups[i](second(x))))
            else:
                x = first(self.attentions[i](x, x, mask) + x)
                x = second(self.downs[i](self.gelu(self.ups[i](x))) + x)
        return self.norms[4](x)[:, 0] if self.pre else x


class RMSNorm(nn.Module):
    """RMS norm with its casts, as decoders write it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


class RotaryAttention(Attention):
    """Causal attention with rotary positions, two query heads for each key head, in torch's own kernel."""

    def __init__(self) -> None:
        super().__init__(kv_heads=HEADS // 2, bias=False)
        self.register_buffer("frequencies", 10.0 ** -torch.arange(0, self.size, 2).float())

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2], dtype=torch.float32)[:, None] * self.frequencies
        angles = torch.cat((angles, angles), -1)
        turned = torch.cat((-x[..., self.size // 2 :], x[..., : self.size // 2]), -1)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (
            self.split(self.query(x)),
            self.split(self.key(memory)),
            self.split(self.value(memory)),
        )
        query, key = self.rotate(query), self.rotate(key)
        key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
        context = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(context.transpose(1, 2).reshape(x.shape[0], x.shape[1], WIDTH))


class Decoder(nn.Module):
    """Two layers in the manner of LLaMA, its head tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, WIDTH)
        self.attentions = nn.ModuleList(RotaryAttention() for _ in range(2))
        self.norms = nn.ModuleList(RMSNorm() for _ in range(5))
        self.gates = nn.ModuleList(nn.Linear(WIDTH, INNER, False) for _ in range(2))
        self.ups = nn.ModuleList(nn.Linear(WIDTH, INNER, False) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(INNER, WIDTH, False) for _ in range(2))
        self.head = nn.Linear(WIDTH, 30, False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for i in range(2):
            normed = self.norms[2 * i](x)
            x = x + self.attentions[i](normed, normed)
            normed = self.norms[2 * i + 1](x)
            x = x + self.downs[i](functional.silu(self.gates[i](normed)) * self.ups[i](normed))
        return self.head(self.norms[4](x))


class Crossed(nn.Module):
    """One encoder layer and one decoder layer that attends to it, norms behind the residual additions."""

    def __init__(self) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention() for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.ups = nn.ModuleList(nn.Linear(WIDTH, INNER) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(INNER, WIDTH) for _ in range(2))

    def feed(self, i: int, x: Tensor) -> Tensor:
        return self.downs[i](functional.relu(self.ups[i](x)))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory = self.norms[0](source + self.attentions[0](source, source))
        memory = self.norms[1](memory + self.feed(0, memory))
        x = self.norms[2](target + self.attentions[1](target, target))
        x = self.norms[3](x + self.attentions[2](x, memory))
        return self.norms[4](x + self.feed(1, x))


def encoder_inputs() -> dict[str, Tensor]:
    return {"tokens": torch.arange(14).reshape(2, 7), "mask": torch.ones(2, 7)}


def decoder_inputs() -> dict[str, Tensor]:
    return {"tokens": torch.arange(14).reshape(2, 7)}


def crossed_inputs() -> dict[str, Tensor]:
    return {"source": torch.randn(2, 7, WIDTH), "target": torch.randn(2, 5, WIDTH)}


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "post": (lambda: Encoder(pre=False), encoder_inputs),
    "pre": (lambda: Encoder(pre=True, approximate="tanh"), encoder_inputs),
    "decoder": (Decoder, decoder_inputs),
    "crossed": (Crossed, crossed_inputs),
}


def export(name: str, opset: int, *, dynamo: bool) -> ir.Model:
    """A model of `MODELS` as one of torch's exporters writes it, batch and length left open."""
    torch.manual_seed(0)
    make, make_inputs = MODELS[name]
    module, inputs = make().eval(), make_inputs()
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)  # no two norms alike, and none to be folded away
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            return _by_dynamo(module, inputs, opset) if dynamo else _by_script(module, inputs, opset)
        finally:
            logging.disable(logging.NOTSET)


def _by_dynamo(module: nn.Module, inputs: dict[str, Tensor], opset: int) -> ir.Model:
    shapes = {name: dict.fromkeys((0, 1), torch.export.Dim.AUTO) for name in inputs}
    program = torch.onnx.export(
        module, kwargs=inputs, dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
    )
    return ir.from_proto(program.model_proto)


def _by_script(module: nn.Module, inputs: dict[str, Tensor], opset: int) -> ir.Model:
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        buffer,
        dynamo=False,
        opset_version=opset,
        input_names=list(inputs),
        dynamic_axes={name: {0: f"{name}_batch", 1: f"{name}_length"} for name in inputs},
    )
    return ir.from_proto(onnx.load_from_string(buffer.getvalue()))


def write_exports(folder: Path) -> None:
    """Write what the dynamo exporter makes of each model, less its notes on where the code lies."""
    folder.mkdir(exist_ok=True)
    for name in MODELS:
        for opset in (18, 23):
            model = export(name, opset, dynamo=True)
            for node in model.graph.all_nodes():
                node.metadata_props.clear()
                node.doc_string = None
                for value in node.outputs:
                    value.metadata_props.clear()
            model.metadata_props.clear()
            model.graph.metadata_props.clear()
            for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
                value.metadata_props.clear()
            (folder / f"{name}_{opset}.onnx").write_bytes(ir.to_proto(model).SerializeToString())


if __name__ == "__main__":
    write_exports(Path(__file__).parent / "exports")
