"""Small models for calibration tests, data for them, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.statistics import Statistic
from tests.graphs import model_of

CHANNELS = 6
VOCABULARY = 50
EVERY_KIND = tuple(kind for kind in Statistic if kind is not Statistic.EXAMPLES)
"""But for examples, which are in test_instances.py."""


def every(*names: str) -> dict[Statistic, Sequence[str]]:
    """Every kind of statistic of values."""
    return dict.fromkeys(EVERY_KIND, names)


def encoder(*, batch: str = "batch", ids: str = "int64") -> ir.Model:
    """Token numbers and a mask in; `hidden` [B, S, C], `flat` [B*S, C], `scores` [B, 2, S, S] inside."""
    rng = np.random.default_rng(7)
    return model_of(
        f"""
        encoder ({ids}[{batch}, sequence] input_ids, {ids}[{batch}, sequence] attention_mask)
          => (float[n, s, 8] logits)
          <float[{VOCABULARY}, {CHANNELS}] table, float[{CHANNELS}, 8] weight,
           int64[2] rows = {{-1, {CHANNELS}}}, int64[4] heads = {{0, 0, 2, -1}}, int64[1] axes = {{1}}>
        {{
          hidden = Gather (table, input_ids)
          flat = Reshape (hidden, rows)
          squared = Mul (hidden, hidden)
          split = Reshape (squared, heads)
          query = Transpose <perm = [0, 2, 1, 3]> (split)
          key = Transpose <perm = [0, 2, 3, 1]> (split)
          scores = MatMul (query, key)
          pooled = ReduceMean <keepdims = 0> (hidden, axes)
          logits = MatMul (squared, weight)
        }}
        """,
        table=rng.standard_normal((VOCABULARY, CHANNELS)).astype(np.float32),
        weight=rng.standard_normal((CHANNELS, 8)).astype(np.float32),
    )


def table_of(model: ir.Model) -> np.ndarray:
    tensor = model.graph.initializers["table"].const_value
    assert tensor is not None
    return tensor.numpy()


def hidden_tokens(feeds: Sequence[dict[str, np.ndarray]], model: ir.Model) -> np.ndarray:
    """What `hidden` holds at the positions that are data."""
    table = table_of(model)
    return np.concatenate([table[feed["input_ids"][feed["attention_mask"] == 1]] for feed in feeds])


def linear(shape: str = "batch, 4", dtype: str = "float") -> ir.Model:
    """`x` in, `y = x * x` inside, `z = y + y` out."""
    return model_of(
        f"linear ({dtype}[{shape}] x) => ({dtype}[{shape}] z) {{ y = Mul (x, x) z = Add (y, y) }}"
    )


def ragged(count: int = 12, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Feeds of one or two samples, lengths 3 to 9, the second padded with token 0, which is no data."""
    rng = np.random.default_rng(seed)
    feeds = []
    for number in range(count):
        rows, length = 1 + number % 2, int(rng.integers(3, 10))
        mask = np.ones((rows, length), dtype=np.int64)
        ids = rng.integers(1, VOCABULARY, (rows, length))
        if rows == 2:
            mask[1, length // 2 :] = 0
            ids[1, length // 2 :] = 0
        feeds.append({"input_ids": ids, "attention_mask": mask})
    return feeds


def write_tokenizer(path: Path) -> Path:
    """A word-level tokenizer that puts [CLS] in front and [SEP] behind."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bee", "sees", "the", "sea", "and", "so", "do", "we"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(path))
    return path
