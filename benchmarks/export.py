"""How each benchmark model becomes ONNX, and the proof that the ONNX file computes what torch computes.

An export is what a user's own export would be: the model class as transformers ships it, attention as it
chooses, batch and sequence dynamic. Its difference to torch on ragged batches must stay under `TOLERANCE`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DECODER_INPUTS = ("input_ids", "attention_mask")
OPSETS = {False: 17, True: 18}
"""The default operator set of TorchScript exports and of dynamo exports."""
TOLERANCE = 1e-4
"""Largest difference allowed between a model in torch and its export, relative to the largest output."""


class BenchmarkError(Exception):
    """A benchmark that cannot go on, and why."""


def build_vit(source: Path, target: Path) -> None:
    """Take the ONNX file as it is."""
    shutil.copyfile(source / "vit_s_focus.onnx", target / "model.onnx")


def build_minilm(source: Path, target: Path) -> None:
    """Export the encoder from its safetensors file with both of torch's exporters."""
    import transformers

    model = transformers.BertModel.from_pretrained(source, add_pooling_layer=False).eval()
    encoder = _positional(model, ENCODER_INPUTS, "last_hidden_state")
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    for spelling in ("torchscript", "dynamo"):
        path = target / f"{spelling}.onnx"
        _export(encoder, path, ENCODER_INPUTS, "last_hidden_state", dynamo=spelling == "dynamo")
        _check_export(encoder, path, _token_samples(ENCODER_INPUTS, words=30_000))


def build_smollm2(source: Path, target: Path) -> None:
    """Load the 4-bit GGUF file into float32 and export tokens -> logits, without a cache."""
    import torch
    import transformers

    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, dtype=torch.float32
    ).eval()
    transformers.AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)
    decoder = _positional(model, DECODER_INPUTS, "logits", use_cache=False)
    path = target / "model.onnx"
    _export(decoder, path, DECODER_INPUTS, "logits", dynamo=True)
    _check_export(decoder, path, _token_samples(DECODER_INPUTS, words=49_000))


BUILDERS: Mapping[str, Callable[[Path, Path], None]] = {
    "minilm": build_minilm,
    "vit": build_vit,
    "smollm2": build_smollm2,
}


def _positional(model: Any, inputs: Sequence[str], output: str, **fixed: object) -> Any:
    """Wrap a transformers model so that it takes tensors by position and gives one tensor."""
    import torch

    class Positional(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.model(**dict(zip(inputs, tensors, strict=True)), **fixed)[output]
            return result

    return Positional().eval()


def _export(model: Any, path: Path, inputs: Sequence[str], output: str, *, dynamo: bool) -> None:
    import torch

    axes = {name: {0: "batch", 1: "sequence"} for name in (*inputs, output)}
    tensors = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in inputs)
    names = {"input_names": list(inputs), "output_names": [output], "opset_version": OPSETS[dynamo]}
    if not dynamo:
        torch.onnx.export(model, tensors, str(path), dynamo=False, dynamic_axes=axes, **names)
        return
    dynamic = {axis: torch.export.Dim(name) for axis, name in axes[output].items()}
    shapes = (tuple(dynamic for _ in inputs),)
    program = torch.onnx.export(model, tensors, dynamo=True, dynamic_shapes=shapes, **names)
    program.save(str(path), external_data=False)


def _token_samples(inputs: Sequence[str], words: int) -> list[Arrays]:
    """Make random tokens in two shapes, the second sample of each batch padded at its end."""
    samples = []
    for seed, (batch, length) in enumerate(((1, 9), (3, 40))):
        generator = np.random.default_rng(seed)
        mask = np.ones((batch, length), np.int64)
        mask[1:, length // 2 :] = 0
        feeds = {"input_ids": generator.integers(1000, words, mask.shape), "attention_mask": mask}
        feeds["token_type_ids"] = np.zeros_like(mask)
        samples.append({name: feeds[name] for name in inputs})
    return samples


def _check_export(model: Any, path: Path, samples: Sequence[Arrays]) -> None:
    """Run both on the same tokens and compare the outputs of the tokens that are not padding."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for feeds in samples:
        with torch.inference_mode():
            wanted = model(*(torch.from_numpy(array) for array in feeds.values())).numpy()
        got = session.run(None, feeds)[0]
        kept = feeds["attention_mask"].astype(bool)
        difference = float(np.abs(got - wanted)[kept].max() / np.abs(wanted[kept]).max())
        if not difference <= TOLERANCE:
            raise BenchmarkError(f"{path.name} differs from torch by {difference:.2e} of the largest output")
        print(f"{path.name}: differs from torch by {difference:.2e} of the largest output")
