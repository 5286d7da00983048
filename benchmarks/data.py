"""Real inputs for each benchmark model, made once and kept in the cache.

    minilm    calibration.{jsonl,npz} and test.{jsonl,npz}: 64 and 128 long descriptions of Debian packages
              retrieval.npz: 2,000 other packages, short descriptions (queries) and long ones (documents)
              many.npz: 512 further descriptions, for measuring memory
    vit       calibration/, test/ (PNG) and their .npz: 32 crops each, of different pictures
    smollm2   calibration.npz and test.npz: 16 and 24 chunks of 256 tokens of running text
    smollm2-cache   the same chunks, each with its positions and a past of length 0
    smollm2-cache-many   calibration.npz: 64 such chunks, none of them a test's, for weights of 4 bits

`manifest.json` in each folder holds the sha256 of every file: results are comparable where it is the same.
Run `python -m benchmarks.data [NAME ...]`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import pictures
from benchmarks.cached import past_names
from benchmarks.export import Arrays, BenchmarkError
from benchmarks.models import cache_folder, fetch
from benchmarks.texts import Description, read_descriptions
from onnxq.files import load as load_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENS = 128
"""Tokens of a padded text for MiniLM."""
CHUNK = 256
"""Tokens of a chunk for SmolLM2."""
COUNTS = {"calibration": 64, "test": 128, "retrieval": 2000, "many": 512, "chunks": 400}
"""Descriptions for each use, taken one after another, so that no package serves two uses."""
CALIBRATION_CHUNKS = 16
TEST_CHUNKS = 24
MANY_CHUNKS = 64


def prepare(name: str) -> Path:
    """Give the folder with a model's inputs, making it on the first call.

    Args:
        name: One of `WRITERS`.

    Raises:
        BenchmarkError: The name is unknown, or texts or pictures are missing on this machine.
    """
    if name not in WRITERS:
        raise BenchmarkError(f"no data for {name!r}; there are {', '.join(WRITERS)}")
    target = cache_folder() / "data" / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            built = Path(scratch) / "built"
            built.mkdir()
            WRITERS[name](built)
            _write_manifest(built)
            os.replace(built, target)
    return target


def fingerprint(name: str) -> str:
    """Give one sha256 over the manifest of a model's inputs."""
    return hashlib.sha256((prepare(name) / "manifest.json").read_bytes()).hexdigest()


def load(path: Path) -> Arrays:
    """Read the arrays of an .npz file; the first axis of each counts samples."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def batches(arrays: Mapping[str, np.ndarray], size: int) -> list[Arrays]:
    """Cut arrays with a common first axis into consecutive batches, the last one possibly smaller."""
    count = len(next(iter(arrays.values())))
    return [{name: array[at : at + size] for name, array in arrays.items()} for at in range(0, count, size)]


def encode(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Arrays:
    """Turn texts into the encoder's three inputs, int64 [texts, length], cut or padded."""
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encoded = tokenizer.encode_batch(list(texts))
    ids = np.array([each.ids for each in encoded], np.int64)
    mask = np.array([each.attention_mask for each in encoded], np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _share_out() -> dict[str, list[Description]]:
    descriptions = iter(read_descriptions())
    shares = {}
    for use, count in COUNTS.items():
        shares[use] = [each for each, _ in zip(descriptions, range(count), strict=False)]
        if len(shares[use]) < count:
            raise BenchmarkError(f"apt holds too few descriptions: {len(shares[use])} of {count} for {use}")
    return shares


def _open_tokenizer(name: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(fetch(name) / "tokenizer.json"))


def _write_minilm(folder: Path) -> None:
    shares, tokenizer = _share_out(), _open_tokenizer("minilm")
    for use in ("calibration", "test"):
        texts = [each.long for each in shares[use]]
        (folder / f"{use}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        save(folder / f"{use}.npz", encode(tokenizer, texts, TOKENS))
    save(folder / "many.npz", encode(tokenizer, [each.long for each in shares["many"]], TOKENS))
    queries = encode(tokenizer, [each.short for each in shares["retrieval"]], TOKENS // 4)
    documents = encode(tokenizer, [each.long for each in shares["retrieval"]], TOKENS)
    sides = {"query": queries, "document": documents}
    named = {f"{side}.{key}": array for side, arrays in sides.items() for key, array in arrays.items()}
    save(folder / "retrieval.npz", named)


def _write_vit(folder: Path) -> None:
    for seed, (use, names) in enumerate((("calibration", pictures.CALIBRATION), ("test", pictures.TEST))):
        crops = pictures.write_crops(names, folder / use, seed)
        save(folder / f"{use}.npz", {"input_image": crops})


def _write_smollm2(folder: Path) -> None:
    chunks = _chunks(CALIBRATION_CHUNKS + TEST_CHUNKS)
    for use, rows in (("calibration", chunks[:CALIBRATION_CHUNKS]), ("test", chunks[CALIBRATION_CHUNKS:])):
        save(folder / f"{use}.npz", {"input_ids": rows, "attention_mask": np.ones_like(rows)})


def _chunks(wanted: int) -> np.ndarray:
    """The first so many chunks of running text, int64 [wanted, CHUNK]."""
    ids = _open_tokenizer("smollm2").encode("\n\n".join(each.long for each in _share_out()["chunks"])).ids
    if len(ids) < wanted * CHUNK:
        raise BenchmarkError(f"too little text for {wanted} chunks of {CHUNK} tokens: {len(ids)} tokens")
    return np.array(ids[: wanted * CHUNK], np.int64).reshape(wanted, CHUNK)


def _write_smollm2_cache(folder: Path) -> None:
    for use in ("calibration", "test"):
        tokens = load(prepare("smollm2") / f"{use}.npz")
        save(folder / f"{use}.npz", _with_past(tokens["input_ids"]))


def _write_smollm2_cache_many(folder: Path) -> None:
    chunks = _chunks(MANY_CHUNKS + TEST_CHUNKS)
    behind = CALIBRATION_CHUNKS + TEST_CHUNKS
    save(
        folder / "calibration.npz", _with_past(np.concatenate([chunks[:CALIBRATION_CHUNKS], chunks[behind:]]))
    )


def _with_past(rows: np.ndarray) -> Arrays:
    """Inputs of the model with a cache for chunks [n, CHUNK], nothing having come before."""
    shapes = _input_shapes("smollm2-cache")
    layers = sum(name.endswith(".key") for name in shapes)
    shape = shapes[past_names(1)[0]]
    empty = np.zeros((len(rows), shape[1], 0, shape[3]), np.float32)
    positions = np.tile(np.arange(rows.shape[1]), (len(rows), 1))
    tokens = {"input_ids": rows, "attention_mask": np.ones_like(rows)}
    return {**tokens, "position_ids": positions, **dict.fromkeys(past_names(layers), empty)}


def _input_shapes(name: str) -> dict[str, list[int]]:
    """Sizes of the inputs of a model, 0 for free axes."""
    inputs = load_model(fetch(name) / "model.onnx").graph.inputs
    shapes = {str(each.name): each.shape or () for each in inputs}
    return {key: [size if isinstance(size, int) else 0 for size in shape] for key, shape in shapes.items()}


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "minilm": _write_minilm,
    "vit": _write_vit,
    "smollm2": _write_smollm2,
    "smollm2-cache": _write_smollm2_cache,
    "smollm2-cache-many": _write_smollm2_cache_many,
}


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays by name as an .npz file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types its keywords as if all were its own


def _write_manifest(folder: Path) -> None:
    """Note what each file holds, without the container around arrays; the pictures are in the arrays."""
    sums = {}
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        digest = hashlib.sha256()
        if path.suffix == ".npz":
            for name, array in sorted(load(path).items()):
                digest.update(name.encode() + str(array.shape).encode() + array.tobytes())
        else:
            digest.update(path.read_bytes())
        sums[path.name] = digest.hexdigest()
    (folder / "manifest.json").write_text(json.dumps(sums, indent=1) + "\n")


def main() -> None:
    """Prepare the inputs named on the command line, or all of them."""
    for name in sys.argv[1:] or WRITERS:
        print(f"{prepare(name)}  {fingerprint(name)[:12]}")


if __name__ == "__main__":
    main()
