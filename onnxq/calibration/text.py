"""Text, a sample a line (``.jsonl``), through the model's own tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.calibration.inputs import InputSpec, fixed_batch
from onnxq.calibration.source import DataOptions, DataSource, Item, make_source
from onnxq.errors import CalibrationError

MADE = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Inputs that a tokenizer can fill."""


@dataclass(frozen=True)
class TextReader:
    """Lines of a file, found by their offsets, and the tokenizer that cuts them.

    Attributes:
        path: The file.
        offsets: Where each line begins, in bytes.
        tokenizer: A ``tokenizers.Tokenizer``.
        wanted: Names of the inputs to make.
        pad: Token number of padding.
        length: Fixed length of every sample; None to pad to the longest of a batch.
        preparation: Hash of the tokenizer, and the length at which text is cut.
    """

    path: Path
    offsets: tuple[int, ...] = field(repr=False)
    tokenizer: Any = field(repr=False)
    wanted: tuple[str, ...]
    pad: int
    length: int | None
    preparation: str
    uniform: bool = False

    @property
    def origin(self) -> str:
        """The file."""
        return str(self.path)

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Token numbers and types of each line, one in memory at a time."""
        with self.path.open("rb") as file:
            for index in indices:
                file.seek(self.offsets[index])
                encoding = self.tokenizer.encode(text_of(file.readline(), f"{self.path}, line {index + 1}"))
                if not encoding.ids:
                    raise CalibrationError(
                        f"{self.path}, line {index + 1}: the tokenizer makes no token of it",
                        hint="drop the line",
                        slug="empty-text",
                    )
                yield {"ids": encoding.ids, "types": encoding.type_ids}

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """A batch, padded on the right."""
        lengths = np.array([len(item["ids"]) for item in items])
        shape = (len(items), self.length or int(lengths.max()))
        mask = np.arange(shape[1]) < lengths[:, np.newaxis]
        feeds = {
            "input_ids": np.full(shape, self.pad, dtype=np.int64),
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
            "position_ids": np.where(mask, np.arange(shape[1]), 0),
        }
        feeds["input_ids"][mask] = np.concatenate([item["ids"] for item in items])
        feeds["token_type_ids"][mask] = np.concatenate([item["types"] for item in items])
        return {name: feeds[name] for name in self.wanted}


def open_text(path: Path, specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    """A source over a ``.jsonl`` file: each line an object with ``"text"``, or a string.

    Raises:
        CalibrationError: The model wants something else than text, there is no tokenizer, or a line is no
            text.
    """
    _require_text_model(specs, path)
    length = _fixed_length(specs)
    tokenizer, digest = _load_tokenizer(options, length or options.max_length)
    offsets, items = _index(path, options.limit)
    reader = TextReader(
        path,
        offsets,
        tokenizer,
        tuple(spec.name for spec in specs),
        _pad_of(tokenizer),
        length,
        f"{digest} {length or options.max_length} {length is not None}",
    )
    fixed = fixed_batch(specs)
    return make_source(
        reader, specs, items, options, batch_size=fixed or options.batch_size, whole_batches=fixed is not None
    )


def text_of(line: bytes, where: str) -> str:
    """The text of a line.

    Raises:
        CalibrationError: It is no JSON, or holds no text.
    """
    try:
        content = json.loads(line)
    except ValueError as error:
        raise CalibrationError(
            f"{where}: not JSON: {error}",
            hint='each line is {"text": "..."} or "..."',
            slug="not-jsonl",
        ) from error
    text = content.get("text") if isinstance(content, dict) else content
    if not isinstance(text, str) or not text.strip():
        keys = f" (it has {', '.join(map(repr, content))})" if isinstance(content, dict) else ""
        raise CalibrationError(
            f"{where}: no text in it{keys}", hint='each line is {"text": "..."} or "..."', slug="no-text"
        )
    return text


def _index(path: Path, limit: int | None) -> tuple[tuple[int, ...], list[Item]]:
    """Offset and digest of each line; empty lines are passed over."""
    offsets: list[int] = []
    items: list[Item] = []
    at = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip() and (limit is None or len(items) < limit):
                text = text_of(line, f"{path}, line {number}")
                offsets.append(at)
                items.append(Item(hashlib.sha256(text.encode(errors="surrogatepass")).digest()))
            at += len(line)
    return tuple(offsets), items


def _require_text_model(specs: tuple[InputSpec, ...], path: Path) -> None:
    strange = [spec for spec in specs if spec.name not in MADE]
    if strange or all(spec.name != "input_ids" for spec in specs):
        raise CalibrationError(
            f"{path}: text fills {', '.join(MADE)}; the model wants {', '.join(map(str, specs))}",
            hint="give an .npz file, a folder of .npz files or module:function, with arrays by input name",
            slug="not-a-text-model",
        )


def _fixed_length(specs: tuple[InputSpec, ...]) -> int | None:
    for spec in specs:
        if spec.shape is not None and len(spec.shape) == 2 and isinstance(spec.shape[1], int):
            return spec.shape[1]
    return None


def _load_tokenizer(options: DataOptions, length: int) -> tuple[Any, str]:
    if options.tokenizer is None:
        raise CalibrationError(
            "text needs the model's tokenizer",
            hint="give its tokenizer.json with --tokenizer FILE",
            slug="no-tokenizer",
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise CalibrationError(
            "reading text needs the package tokenizers",
            hint='pip install "onnxq[text]"',
            slug="no-tokenizers-package",
        ) from None
    path = Path(options.tokenizer)
    try:
        content = path.read_bytes()
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the package raises bare Exception
        raise CalibrationError(
            f"cannot read the tokenizer {path}: {error}",
            hint="it is the file tokenizer.json that lies beside the model",
            slug="bad-tokenizer",
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer, hashlib.sha256(content).hexdigest()


def _pad_of(tokenizer: Any) -> int:
    """Token number of padding; 0 where the tokenizer knows none, which the mask hides all the same."""
    for token in ("[PAD]", "<pad>", "<|endoftext|>", "</s>"):
        number = tokenizer.token_to_id(token)
        if number is not None:
            return int(number)
    return 0
