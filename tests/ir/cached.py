"""A tiny causal language model with a cache, as torch's two exporters write transformers' Llama.

``python -m tests.ir.cached`` writes both into ``exports/``; it needs `torch` and `transformers`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq import files

FOLDER = Path(__file__).parent / "exports"
SPELLINGS = ("cached_torchscript", "cached_dynamo")
LAYERS, QUERY_HEADS, KEY_HEADS, SIZE, WORDS = 2, 6, 2, 8, 64


def feeds(seed: int, batch: int, new: int, past: int, padded: bool = False) -> dict[str, np.ndarray]:
    """Tokens behind a random past; where asked for, the last samples' first positions are masked."""
    generator = np.random.default_rng(seed)
    mask = np.ones((batch, past + new), np.int64)
    if padded:
        mask[-1, : past + new - 2] = generator.integers(0, 2, past + new - 2)
        mask[-1, 0] = 1  # every token sees at least one
    found = {
        "input_ids": generator.integers(0, WORDS, (batch, new)),
        "attention_mask": mask,
        "position_ids": np.tile(np.arange(past, past + new), (batch, 1))
        + generator.integers(0, 5, (batch, 1)),
    }
    for layer in range(LAYERS):
        for side in ("key", "value"):
            shape = (batch, KEY_HEADS, past, SIZE)
            found[f"past_key_values.{layer}.{side}"] = generator.standard_normal(shape, dtype=np.float32)
    return found


def load(spelling: str) -> ir.Model:
    """One of `SPELLINGS`."""
    return files.load(FOLDER / f"{spelling}.onnx")


def write() -> None:
    """Export anew."""
    import torch
    import transformers

    from benchmarks.cached import check_cached, export_cached

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=QUERY_HEADS * SIZE,
        intermediate_size=40,
        num_hidden_layers=LAYERS,
        num_attention_heads=QUERY_HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=SIZE,
        vocab_size=WORDS,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for spelling in SPELLINGS:
        path = FOLDER / f"{spelling}.onnx"
        export_cached(model, path, dynamo=spelling == "cached_dynamo")
        check_cached(model, path)
        bare = files.load(path)
        bare.doc_string, bare.graph.doc_string = None, None
        for node in bare.graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        bare.metadata_props.clear()
        bare.graph.metadata_props.clear()
        files.save(bare, path)


if __name__ == "__main__":
    write()
