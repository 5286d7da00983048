"""SmolLM2 with a cache of keys and values: tokens and what came before -> logits and what will have come.

Inputs `input_ids`, `attention_mask` (over past and new tokens), `position_ids`, and for each layer
`past_key_values.N.key` and `.value` [batch, heads, past, size]; outputs `logits`, `present.N.key` and
`present.N.value`.
The first call has a past of length 0. These are the names that most runtimes of language models expect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export import DECODER_INPUTS, OPSETS, TOLERANCE, Arrays, BenchmarkError

INPUTS = (*DECODER_INPUTS, "position_ids")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIDES = ("key", "value")


def build_smollm2_cache(source: Path, target: Path) -> None:
    """Load the 4-bit GGUF file into float32 and export it with a cache, by torch's dynamo exporter."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    model.eval()
    transformers.AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(target)
    path = target / "model.onnx"
    export_cached(model, path)
    check_cached(model, path)


def past_names(layers: int) -> list[str]:
    """Names of the inputs that hold the past."""
    return [f"past_key_values.{layer}.{side}" for layer in range(layers) for side in SIDES]


def present_names(layers: int) -> list[str]:
    """Names of the outputs that hold past and new."""
    return [f"present.{layer}.{side}" for layer in range(layers) for side in SIDES]


def export_cached(model: Any, path: Path, *, dynamo: bool = True) -> None:
    """Export a causal language model of transformers with a cache.

    Args:
        model: In evaluation mode.
        path: The file to write.
        dynamo: Which of torch's exporters.
    """
    import torch

    layers, decoder = model.config.num_hidden_layers, _with_cache(model)
    generator = np.random.default_rng(0)
    feeds = sample(model.config, generator, batch=2, new=5, past=7)
    tensors = tuple(torch.from_numpy(array) for array in feeds.values())
    names: dict[str, Any] = {
        "input_names": [*INPUTS, *past_names(layers)],
        "output_names": ["logits", *present_names(layers)],
        "opset_version": OPSETS[dynamo],
    }
    axes = _axes(layers)
    if not dynamo:
        torch.onnx.export(decoder, tensors, str(path), dynamo=False, dynamic_axes=axes, **names)
        return
    batch, new, past = (torch.export.Dim(name) for name in ("batch", "sequence", "past_sequence"))
    tokens, both = {0: batch, 1: new}, {0: batch, 1: torch.export.Dim.DYNAMIC}
    pasts = tuple({0: batch, 2: past} for _ in range(2 * layers))
    shapes = (tokens, both, tokens, pasts)
    program = torch.onnx.export(decoder, tensors, dynamo=True, dynamic_shapes=shapes, **names)
    _name_axes(program.model, axes)
    program.save(str(path), external_data=False)


def sample(config: Any, generator: np.random.Generator, *, batch: int, new: int, past: int) -> Arrays:
    """Random tokens behind a random past; the second sample on is padded on the left."""
    mask = np.ones((batch, past + new), np.int64)
    mask[1:, : (past + new) // 3] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)[:, past:]
    feeds = {
        "input_ids": generator.integers(config.vocab_size // 50, config.vocab_size, (batch, new)),
        "attention_mask": mask,
        "position_ids": positions,
    }
    shape = (batch, config.num_key_value_heads, past, config.head_dim)
    for name in past_names(config.num_hidden_layers):
        feeds[name] = generator.standard_normal(shape, dtype=np.float32)
    return feeds


def check_cached(model: Any, path: Path) -> None:
    """Run both on the same tokens, without a past and with one, and compare logits and caches.

    Raises:
        BenchmarkError: They differ by more than `TOLERANCE` of the largest number of an output.
    """
    import onnxruntime
    import torch

    decoder, generator = _with_cache(model), np.random.default_rng(1)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, new, past in ((1, 9, 0), (1, 1, 9), (3, 4, 12)):
        feeds = sample(model.config, generator, batch=batch, new=new, past=past)
        with torch.inference_mode():
            wanted = [each.numpy() for each in decoder(*map(torch.from_numpy, feeds.values()))]
        real = feeds["attention_mask"][:, past:].astype(bool)
        worst = 0.0
        for ours, theirs in zip(session.run(None, feeds), wanted, strict=True):
            if ours.ndim == 3:  # logits; what padding predicts is nobody's business
                ours, theirs = ours[real], theirs[real]
            worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
        if not worst <= TOLERANCE:
            raise BenchmarkError(f"{path.name} differs from torch by {worst:.2e} of the largest number")
        print(f"{path.name}, {new} tokens behind {past}: differs from torch by {worst:.2e}")


def _with_cache(model: Any) -> Any:
    """Wrap a model so that its cache goes in and out as tensors."""
    import torch
    from transformers import DynamicCache

    class WithCache(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            cache = DynamicCache()
            for layer in range(len(past) // 2):
                cache.update(past[2 * layer], past[2 * layer + 1], layer)
            found = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            presents = [each for layer in found.past_key_values.layers for each in (layer.keys, layer.values)]
            return (found.logits, *presents)

    return WithCache().eval()


def _axes(layers: int) -> dict[str, dict[int, str]]:
    """Names of the free axes of inputs and outputs."""
    total = "past_sequence + sequence"
    tokens = {0: "batch", 1: "sequence"}
    return {
        **dict.fromkeys(("input_ids", "position_ids", "logits"), tokens),
        "attention_mask": {0: "batch", 1: total},
        **{name: {0: "batch", 2: "past_sequence"} for name in past_names(layers)},
        **{name: {0: "batch", 2: total} for name in present_names(layers)},
    }


def _name_axes(model: Any, axes: dict[str, dict[int, str]]) -> None:
    """Give the free axes of a dynamo export their names, inside the graph too."""
    import onnx_ir as ir

    named: dict[str, str] = {}
    for value in (*model.graph.inputs, *model.graph.outputs):
        for axis, name in axes[value.name].items():
            named.setdefault(str(value.shape[axis]), name)
    for node in model.graph:
        for value in (*node.outputs, *node.inputs):
            _rename_axes(value, named, ir)
    for value in (*model.graph.inputs, *model.graph.outputs):
        _rename_axes(value, named, ir)


def _rename_axes(value: Any, named: dict[str, str], ir: Any) -> None:
    if value is None or value.shape is None or value.shape.frozen:
        return
    for axis, size in enumerate(value.shape):
        if str(size) in named and not isinstance(size, int):
            value.shape[axis] = ir.SymbolicDim(named[str(size)])
