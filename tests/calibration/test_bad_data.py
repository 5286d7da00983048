"""Every way in which data can be wrong: the word for it, and what the message says."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from onnxq.calibration import DataOptions, open_data
from onnxq.errors import CalibrationError
from tests.calibration.models import encoder, linear, ragged, write_tokenizer
from tests.graphs import model_of

OK = np.ones((3, 4), dtype=np.float32)
Prepared = Any


@dataclass(frozen=True)
class Bad:
    """One case: how to make the data, what it is for, and how it must be refused."""

    name: str
    make: Callable[[Path], Prepared]
    slug: str
    says: tuple[str, ...]
    model: Callable[[], ir.Model] = linear
    options: Callable[[Path], DataOptions] = field(default=lambda _: DataOptions())


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "d.npz", **arrays)
        return folder / "d.npz"

    return make


def written(name: str, content: bytes | str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    return make


def folder_of(**files: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "data").mkdir()
        for name, content in files.items():
            (folder / "data" / name.replace("_", ".")).write_bytes(content)
        return folder / "data"

    return make


def image_folder(folder: Path) -> Path:
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "a.png")
    return folder / "images"


def truncated(folder: Path) -> Path:
    path = npz(x=np.arange(4000, dtype=np.float32).reshape(1000, 4))(folder)
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def short_member(folder: Path) -> Path:
    """An array whose header promises more rows than follow."""
    path = npz(x=OK)(folder)
    content = path.read_bytes().replace(b"(3, 4)", b"(9, 4)")
    path.write_bytes(content)
    return path


def generator() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": OK}


def failing() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": OK}
    raise KeyError("label")


def lists() -> list[Any]:
    return [{"x": OK}, [OK]]


def image_model() -> ir.Model:
    return linear("batch, 3, 5, 5")


def sized_encoder() -> ir.Model:
    return encoder(batch="8")


def with_tokenizer(folder: Path) -> DataOptions:
    return DataOptions(tokenizer=write_tokenizer(folder / "tokenizer.json"))


def batch_of_none(_: Path) -> DataOptions:
    return DataOptions(batch_size=0)


def poisoned(value: float, *, row: int = 2) -> np.ndarray:
    array = OK.copy()
    array[row, 1] = value
    return array


def sequence_model() -> ir.Model:
    return model_of("m (seq(float[4]) x) => (int64 n) { n = SequenceLength (x) }")


CASES = [
    # Nothing there, or nothing known
    Bad("no such file", lambda _: "absent.npz", "no-such-data", ("absent.npz",)),
    Bad("unknown kind", written("d.csv", "1,2"), "unknown-kind", ("d.csv", ".npz")),
    Bad("folder of nothing", folder_of(), "empty-source", ("nothing",)),
    Bad("folder of strangers", folder_of(readme_md=b"hi"), "unknown-kind", ("neither",)),
    Bad("folder of both", folder_of(a_npz=b"", b_png=b""), "mixed-folder", ("1 .npz files and 1 images",)),
    Bad("npz without samples", npz(x=OK[:0]), "empty-source", ("d.npz", "empty")),
    Bad("no lines", written("d.jsonl", "\n\n"), "empty-source", ("d.jsonl",), encoder, with_tokenizer),
    Bad("no feeds", lambda _: [], "empty-source", ("empty",)),
    # Names
    Bad(
        "misspelt name",
        npz(inputids=np.ones((3, 4), int), attention_mask=np.ones((3, 4), int)),
        "missing-input",
        (
            "input_ids: int64[batch, sequence]",
            "inputids: int64[3, 4]",
            "is 'inputids' meant for 'input_ids'?",
        ),
        encoder,
    ),
    Bad(
        "nothing by that name",
        npz(pixels=OK),
        "missing-input",
        ("x: float32[batch, 4]", "pixels: float32[3, 4]"),
    ),
    Bad("name missing in memory", lambda _: {"y": OK}, "missing-input", ("no data for x",)),
    Bad("name missing in a feed", lambda _: [{"x": OK}, {}], "missing-input", ("feed 1", "Given: nothing")),
    # Element types
    Bad("floats for token numbers", npz(input_ids=OK, attention_mask=OK), "wrong-dtype", ("int64",), encoder),
    Bad(
        "integers that floats cannot hold",
        npz(x=OK.astype(np.int64)),
        "wrong-dtype",
        ("x: int64[1, 4]",),
    ),
    Bad("complex", npz(x=OK.astype(complex)), "wrong-dtype", ("complex128",)),
    Bad("text for numbers", npz(x=OK.astype(str)), "wrong-dtype", ("<U",)),
    Bad(
        "integers out of range",
        npz(input_ids=np.full((3, 4), 2**40), attention_mask=np.ones((3, 4), int)),
        "wrong-dtype",
        ("input_ids: int32[batch, sequence]", "int64[1, 4]"),
        lambda: encoder(ids="int32"),
    ),
    Bad("floats out of range", npz(x=OK.astype(np.float64) * 1e300), "wrong-dtype", ("float32",)),
    Bad("pickled objects", npz(x=np.array([OK, None], dtype=object)), "object-array", ("'x'", "pickled")),
    # Shapes
    Bad("too few axes", npz(x=OK[:, 0]), "wrong-shape", ("x: float32[batch, 4]", "float32[1]")),
    Bad("another width", npz(x=np.ones((3, 5), np.float32)), "wrong-shape", ("float32[1, 5]", "sample 0")),
    Bad("another width in a feed", lambda _: [{"x": OK}, {"x": OK[:, :2]}], "wrong-shape", ("feed 1",)),
    Bad(
        "numbers of samples that differ",
        npz(input_ids=np.ones((3, 4), int), attention_mask=np.ones((2, 4), int)),
        "sample-counts",
        ("int64[3, 4]", "int64[2, 4]"),
        encoder,
    ),
    Bad(
        "lengths that differ within a sample",
        npz(input_ids=np.ones((3, 4), int), attention_mask=np.ones((3, 5), int)),
        "shapes-disagree",
        ("'sequence' is 4 in 'input_ids' and 5 in 'attention_mask'",),
        encoder,
    ),
    Bad(
        "fewer samples than the model takes at once",
        npz(input_ids=np.ones((3, 4), int), attention_mask=np.ones((3, 4), int)),
        "too-few-samples",
        ("3 samples", "8 at a time"),
        sized_encoder,
    ),
    # Numbers that are none
    Bad("nan", npz(x=poisoned(np.nan)), "non-finite-input", ("sample 2", "'x'", "nan")),
    Bad("infinity", npz(x=poisoned(-np.inf, row=0)), "non-finite-input", ("sample 0", "-inf")),
    Bad("nan in a feed", lambda _: [{"x": poisoned(np.nan)}], "non-finite-input", ("feed 0, row 2",)),
    # Damage
    Bad("no archive", written("d.npz", b"hello"), "corrupt-npz", ("d.npz",)),
    Bad("empty file", written("d.npz", b""), "corrupt-npz", ("d.npz",)),
    Bad("cut off", truncated, "corrupt-npz", ("d.npz",)),
    Bad("rows that are not there", short_member, "corrupt-npz", ("d.npz",)),
    Bad("damaged file of a folder", folder_of(a_npz=b"PK"), "corrupt-npz", ("a.npz",)),
    # Python
    Bad("a generator that has begun", lambda _: generator(), "one-shot-data", ("only once",)),
    Bad("code that fails", lambda _: failing, "function-failed", ("KeyError", "label")),
    Bad("a feed that is a list", lambda _: lists, "not-a-feed", ("feed 1", "list")),
    Bad("a module that is not there", lambda _: "no_module_here:feeds", "no-function", ("no_module_here",)),
    Bad("a function that is not there", lambda _: "json:feeds", "no-function", ("feeds",)),
    Bad("a name that is no function", lambda _: "sys:path", "no-function", ("list",)),
    # Text
    Bad("no tokenizer", written("d.jsonl", '"a"'), "no-tokenizer", ("tokenizer",), encoder),
    Bad(
        "a tokenizer that is none",
        written("d.jsonl", '"a"'),
        "bad-tokenizer",
        ("d.jsonl",),
        encoder,
        lambda folder: DataOptions(tokenizer=folder / "d.jsonl"),
    ),
    Bad("no json", written("d.jsonl", '"a"\nplain'), "not-jsonl", ("line 2",), encoder, with_tokenizer),
    Bad("another key", written("d.jsonl", '{"txt": "a"}'), "no-text", ("'txt'",), encoder, with_tokenizer),
    Bad("blank text", written("d.jsonl", '"a"\n"  "'), "no-text", ("line 2",), encoder, with_tokenizer),
    Bad("a number", written("d.jsonl", "3"), "no-text", ("line 1",), encoder, with_tokenizer),
    Bad(
        "no text model",
        written("d.jsonl", '"a"'),
        "not-a-text-model",
        ("x: float32",),
        linear,
        with_tokenizer,
    ),
    # Images
    Bad("no image model", image_folder, "not-an-image-model", ("x: float32[batch, 4]",)),
    Bad("no size", image_folder, "no-image-size", ("x: float32",), lambda: linear("batch, 3, h, w")),
    Bad(
        "another size",
        image_folder,
        "wrong-image-size",
        ("5x5",),
        image_model,
        lambda _: DataOptions(image_size=7),
    ),
    Bad("no channels", image_folder, "not-an-image-model", ("5, 5, 5, 5",), lambda: linear("5, 5, 5, 5")),
    Bad(
        "two means for three channels",
        image_folder,
        "wrong-channel-option",
        ("--mean",),
        image_model,
        lambda _: DataOptions(mean=(0.5, 0.5)),
    ),
    Bad(
        "division by zero",
        image_folder,
        "wrong-channel-option",
        ("--std",),
        image_model,
        lambda _: DataOptions(std=(0.0,)),
    ),
    Bad(
        "damaged image",
        folder_of(a_png=b"\x89PNG"),
        "bad-image",
        ("a.png",),
        image_model,
    ),
    # Options, models
    Bad(
        "a batch of none",
        npz(x=OK),
        "bad-option",
        ("batch_size",),
        linear,
        batch_of_none,
    ),
    Bad("random text", lambda _: "random", "no-random-data", ("string",), lambda: linear("n, 1", "string")),
    Bad(
        "a source of another model",
        lambda _: open_data({"x": OK}, linear()),
        "other-model",
        ("opened for x: float32[batch, 4]", "input_ids"),
        encoder,
    ),
    Bad("a model of sequences", npz(x=OK), "input-kind", ("'x'",), sequence_model),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_data_is_refused_in_words(case: Bad, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        for _ in open_data(case.make(tmp_path), case.model(), case.options(tmp_path)):
            pass
    assert caught.value.slug == case.slug
    for part in case.says:
        assert part in str(caught.value)
    assert caught.value.exit_code == 7


def test_every_case_is_listed_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_function_that_changes_its_mind_is_found_out() -> None:
    calls = iter(range(100))

    def fickle() -> list[dict[str, np.ndarray]]:
        return [{"x": OK * next(calls)}]

    source = open_data(fickle, linear())
    with pytest.raises(CalibrationError) as caught:
        list(source)
    assert caught.value.slug == "unstable-data"


def test_a_function_that_gives_fewer_feeds_later_is_found_out() -> None:
    feeds = ragged()
    source = open_data(lambda: iter(feeds), encoder())
    feeds.pop()
    with pytest.raises(CalibrationError) as caught:
        list(source)
    assert caught.value.slug == "unstable-data"


@pytest.mark.parametrize(("package", "slug"), [("tokenizers", "no-tokenizers-package"), ("PIL", "no-pillow")])
def test_a_package_that_is_not_installed_is_named(
    package: str, slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = with_tokenizer(tmp_path)
    (tmp_path / "d.jsonl").write_text(json.dumps("a"))
    images = image_folder(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CalibrationError) as caught:
        if package == "PIL":
            open_data(images, linear("batch, 3, 5, 5"), options)
        else:
            open_data(tmp_path / "d.jsonl", encoder(), options)
    assert caught.value.slug == slug
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("shape", [b"(-3, 4)", b"(3,-4)"])
def test_negative_sizes_in_a_header_are_damage(tmp_path: Path, shape: bytes) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + b", }\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + OK.tobytes()
    import zipfile

    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(CalibrationError) as caught:
        open_data(tmp_path / "d.npz", linear())
    assert caught.value.slug == "corrupt-npz"
