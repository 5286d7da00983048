"""Every kind of data source: what it gives to the model."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from onnxq.calibration import DataOptions, open_data, split
from tests.calibration.models import encoder, linear, ragged, write_tokenizer
from tests.graphs import model_of

X = np.arange(44, dtype=np.float32).reshape(11, 4)


def joined(source: object, name: str = "x") -> np.ndarray:
    return np.concatenate([feeds[name] for feeds in source])  # type: ignore[attr-defined]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_gives_batches_in_order(tmp_path: Path, save: object) -> None:
    save(tmp_path / "d.npz", x=X, labels=np.zeros(3))  # type: ignore[operator]
    source = open_data(tmp_path / "d.npz", linear(), DataOptions(batch_size=4))
    assert [len(feeds["x"]) for feeds in source] == [4, 4, 3]
    assert len(source) == 11
    assert (joined(source) == X).all()
    assert (joined(source) == X).all(), "a source may be read again"


def test_npz_in_column_major_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.asfortranarray(X))
    assert (joined(open_data(str(tmp_path / "d.npz"), linear())) == X).all()


def test_arrays_in_memory_give_what_their_file_gives(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    file, memory = open_data(tmp_path / "d.npz", linear()), open_data({"x": X}, linear())
    assert file.fingerprint == memory.fingerprint
    assert (joined(file) == joined(memory)).all()


def test_the_limit_takes_the_first_samples() -> None:
    assert (joined(open_data({"x": X}, linear(), DataOptions(limit=3))) == X[:3]).all()


def test_a_model_with_a_fixed_batch_gets_that_many() -> None:
    source = open_data({"x": X}, linear("1, 4"), DataOptions(batch_size=8))
    assert [feeds["x"].shape for feeds in source] == [(1, 4)] * 11
    source = open_data({"x": X}, linear("3, 4"))
    assert [feeds["x"].shape for feeds in source] == [(3, 4)] * 3
    assert (len(source), source.left_out) == (9, 2)


def test_a_model_without_a_batch_axis_gets_samples_as_they_are() -> None:
    source = open_data({"x": X.reshape(11, 2, 2)}, linear("2, 2"), DataOptions(batch_size=8))
    assert [feeds["x"].shape for feeds in source] == [(2, 2)] * 11
    assert len(source) == 11


def test_scalars_and_fixed_arrays_go_into_each_run() -> None:
    model = model_of(
        """m (float[n, 4] x, float scale, float[4] shift) => (float[n, 4] z)
        { y = Mul (x, scale) z = Add (y, shift) }"""
    )
    arrays = {"x": X, "scale": np.float32(2), "shift": np.ones(4, np.float32)}
    source = open_data(arrays, model, DataOptions(batch_size=5))
    assert [feeds["shift"].shape for feeds in source] == [(4,)] * 3
    assert all(feeds["scale"] == 2 for feeds in source)
    assert len(source) == 11
    assert source.fingerprint != open_data({**arrays, "scale": np.float32(3)}, model).fingerprint


def test_initializers_that_are_inputs_may_be_left_out() -> None:
    model = linear()
    default = ir.Value(name="extra", const_value=ir.tensor(np.ones(1, np.float32), name="extra"))
    model.graph.register_initializer(default)
    model.graph.inputs.append(default)
    assert len(open_data({"x": X}, model)) == 11


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.int32, "int64"),
        (np.int64, "int32"),
        (np.uint8, "int64"),
        (np.float64, "float"),
        (np.float16, "float"),
        (np.float32, "float16"),
        (np.bool_, "int64"),
        (np.int64, "bool"),
        (np.int8, "float"),
    ],
)
def test_conversions_that_lose_nothing_are_made(given: type, wanted: str) -> None:
    array = np.array([[0, 1, 1, 0]]).astype(given)
    model = model_of(f"""m ({wanted}[n, 4] x) => ({wanted}[n, 4] y) {{ y = Identity (x) }}""")
    (feeds,) = open_data({"x": array}, model)
    assert feeds["x"].dtype == model.graph.inputs[0].dtype.numpy()  # type: ignore[union-attr]
    assert (feeds["x"] == array).all()


def test_strings_reach_a_model_of_strings(tmp_path: Path) -> None:
    model = model_of("""m (string[n, 1] x) => (string[n, 1] y) { y = Identity (x) }""")
    np.savez(tmp_path / "d.npz", x=np.array([["one"], ["two"]]))
    (feeds,) = open_data(tmp_path / "d.npz", model)
    assert feeds["x"].tolist() == [["one"], ["two"]]


def test_a_folder_of_npz_may_be_ragged(tmp_path: Path) -> None:
    for number, feeds in enumerate(ragged()):
        np.savez(tmp_path / f"{number:02}.npz", **feeds)
    source = open_data(tmp_path, encoder())
    assert [feeds["input_ids"].shape for feeds in source] == [feeds["input_ids"].shape for feeds in ragged()]
    assert len(source) == 18


def test_a_file_of_one_sample_may_leave_the_batch_axis_out(tmp_path: Path) -> None:
    for number, length in enumerate((3, 5)):
        np.savez(
            tmp_path / f"{number}.npz", input_ids=np.ones(length, int), attention_mask=np.ones(length, int)
        )
    assert [feeds["input_ids"].shape for feeds in open_data(tmp_path, encoder())] == [(1, 3), (1, 5)]


@pytest.mark.parametrize("form", ["list", "function"])
def test_feeds_from_python(form: str) -> None:
    spec = ragged() if form == "list" else ragged
    source = open_data(spec, encoder())  # type: ignore[arg-type]
    assert len(source) == 18
    for got, given in zip(source, ragged(), strict=True):
        assert (got["input_ids"] == given["input_ids"]).all()


def test_a_function_named_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_samples.py").write_text(
        "import numpy as np\ndef feeds():\n    for n in (2, 3):\n"
        "        yield {'x': np.ones((n, 4), np.float32)}\n"
    )
    monkeypatch.chdir(tmp_path)
    source = open_data("my_samples:feeds", linear())
    assert [len(feeds["x"]) for feeds in source] == [2, 3]
    assert len(source) == 5


def test_an_open_source_is_given_back() -> None:
    source = open_data({"x": X}, linear())
    assert open_data(source, linear()) is source


class TestText:
    def options(self, folder: Path, **others: object) -> DataOptions:
        tokenizer = write_tokenizer(folder / "tokenizer.json")
        return DataOptions(tokenizer=tokenizer, **others)  # type: ignore[arg-type]

    def test_lines_become_padded_batches(self, tmp_path: Path) -> None:
        lines = [json.dumps({"text": "a bee"}), json.dumps("we see the sea"), "", json.dumps("so")]
        (tmp_path / "d.jsonl").write_text("\n".join(lines))
        source = open_data(tmp_path / "d.jsonl", encoder(), self.options(tmp_path, batch_size=2))
        first, second = source
        assert first["input_ids"].tolist() == [[2, 4, 5, 3, 0, 0], [2, 12, 1, 7, 8, 3]]
        assert first["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
        assert second["input_ids"].tolist() == [[2, 10, 3]]
        assert len(source) == 3

    def test_long_text_is_cut(self, tmp_path: Path) -> None:
        (tmp_path / "d.jsonl").write_text(json.dumps("bee " * 100))
        (feeds,) = open_data(tmp_path / "d.jsonl", encoder(), self.options(tmp_path, max_length=7))
        assert feeds["input_ids"].shape == (1, 7)
        assert feeds["input_ids"][0, -1] == 3

    def test_a_length_that_the_model_fixes_is_filled(self, tmp_path: Path) -> None:
        model = model_of(
            """m (int32[1, 9] input_ids, int32[1, 9] token_type_ids,
            int64[1, 9] position_ids, bool[1, 9] attention_mask)
            => (int32[1, 9] y) { y = Add (input_ids, token_type_ids) }"""
        )
        (tmp_path / "d.jsonl").write_text('"a bee"\n"so do we"')
        feeds, _ = open_data(tmp_path / "d.jsonl", model, self.options(tmp_path))
        assert feeds["input_ids"].tolist() == [[2, 4, 5, 3, 0, 0, 0, 0, 0]]
        assert feeds["position_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 0, 0, 0]]
        assert feeds["attention_mask"].dtype == bool
        assert feeds["input_ids"].dtype == np.int32

    def test_the_fingerprint_follows_the_text_and_how_it_is_cut(self, tmp_path: Path) -> None:
        def fingerprint(text: str, **others: object) -> str:
            (tmp_path / "d.jsonl").write_text(json.dumps(text))
            return open_data(tmp_path / "d.jsonl", encoder(), self.options(tmp_path, **others)).fingerprint

        assert fingerprint("a bee") == fingerprint("a bee", batch_size=3)
        assert len({fingerprint("a bee"), fingerprint("so"), fingerprint("a bee", max_length=3)}) == 3


class TestImages:
    def folder(self, path: Path, size: tuple[int, int] = (20, 10)) -> Path:
        image = Image.new("RGB", size, (255, 0, 51))
        image.paste((0, 255, 0), (0, 0, size[0] // 4, size[1]))
        for name in ("a.png", "b.jpg"):
            image.save(path / name)
        (path / "notes.txt").write_text("not an image")
        return path

    def test_the_middle_is_scaled_and_normalised(self, tmp_path: Path) -> None:
        options = DataOptions(mean=(0.5, 0.5, 0.5), std=(0.25,))
        (feeds,) = open_data(self.folder(tmp_path), linear("batch, 3, 5, 5"), options)
        assert feeds["x"].shape == (2, 3, 5, 5)
        np.testing.assert_allclose(feeds["x"][0, :, 2, 4], [2.0, -2.0, -1.2], atol=1e-6)

    def test_channels_last_and_grey(self, tmp_path: Path) -> None:
        (feeds,) = open_data(self.folder(tmp_path), linear("batch, 5, 5, 1"))
        assert feeds["x"].shape == (2, 5, 5, 1)

    def test_a_model_of_bytes_gets_the_pixels(self, tmp_path: Path) -> None:
        options = DataOptions(image_size=4)
        (feeds,) = open_data(self.folder(tmp_path), linear("batch, height, width, 3", "uint8"), options)
        assert feeds["x"].dtype == np.uint8
        assert feeds["x"][0, 2, 3].tolist() == [255, 0, 51]

    def test_the_fingerprint_follows_the_normalisation(self, tmp_path: Path) -> None:
        folder, model = self.folder(tmp_path), linear("batch, 3, 5, 5")
        assert (
            open_data(folder, model).fingerprint
            != open_data(folder, model, DataOptions(std=(0.5,))).fingerprint
        )


class TestRandom:
    def test_the_same_seed_gives_the_same_data(self) -> None:
        one, two, other = (open_data("random", linear(), DataOptions(seed=seed)) for seed in (1, 1, 2))
        assert one.fingerprint == two.fingerprint != other.fingerprint
        assert (joined(one) == joined(two)).all()
        assert (joined(one) != joined(other)).any()

    def test_token_numbers_stay_inside_their_table(self) -> None:
        source = open_data("random", encoder(), DataOptions(max_length=40, samples=9))
        ids = joined(source, "input_ids")
        assert ids.shape == (9, 40)
        assert ids.min() >= 0
        assert 40 < ids.max() < 50
        assert (joined(source, "attention_mask") == 1).all()

    def test_symbolic_axes_take_the_size_they_are_given(self) -> None:
        source = open_data("random", encoder(), DataOptions(sizes={"sequence": 5}))
        assert next(iter(source))["input_ids"].shape == (8, 5)


class TestSplit:
    def test_it_divides_everything_and_shares_nothing(self) -> None:
        source = open_data({"x": X}, linear())
        calibration, held_out = split(source)
        assert (len(calibration), len(held_out)) == (8, 3)
        rows = {tuple(row) for row in joined(calibration)} | {tuple(row) for row in joined(held_out)}
        assert rows == {tuple(row) for row in X}
        assert split(source).separate

    def test_order_does_not_decide_who_is_held_out(self) -> None:
        shuffled = X[np.random.default_rng(0).permutation(11)]
        one, two = (split(open_data({"x": array}, linear())).held_out for array in (X, shuffled))
        assert {tuple(row) for row in joined(one)} == {tuple(row) for row in joined(two)}

    def test_copies_fall_on_one_side(self) -> None:
        calibration, held_out = split(open_data({"x": np.repeat(X, 3, axis=0)}, linear()))
        assert (len(calibration), len(held_out)) == (24, 9)
        assert not {tuple(row) for row in joined(calibration)} & {tuple(row) for row in joined(held_out)}

    def test_a_function_is_divided_too(self) -> None:
        calibration, held_out = split(open_data(ragged, encoder()))
        assert len(calibration) + len(held_out) == 18
        assert len(list(held_out)) == 3

    @pytest.mark.parametrize("array", [X[:1], np.repeat(X[:1], 5, axis=0)])
    def test_what_cannot_be_divided_says_so(self, array: np.ndarray) -> None:
        parts = split(open_data({"x": array}, linear()))
        assert not parts.separate
        assert len(parts.held_out) == len(parts.calibration) == len(array)

    def test_views_have_their_own_fingerprint(self) -> None:
        source = open_data({"x": X}, linear())
        assert len({source.fingerprint, *(part.fingerprint for part in split(source))}) == 3


class Counted(np.ndarray):
    """An array that can be watched."""


def test_a_generator_is_never_read_ahead_of_its_use() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    peak = 0

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        nonlocal peak
        for number in range(40):
            array = np.full((1, 4), number, dtype=np.float32).view(Counted)
            alive.append(weakref.ref(array))
            peak = max(peak, sum(each() is not None for each in alive))
            yield {"x": array}
            del array

    source = open_data(feeds, linear())
    for _ in source:
        pass
    gc.collect()
    assert peak <= 3
    assert sum(each() is not None for each in alive) == 0


def test_an_npz_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    np.savez(tmp_path / "d.npz", x=np.zeros((1000, 4), np.float32))
    source = open_data(tmp_path / "d.npz", linear(), DataOptions(batch_size=10))
    asked: list[int] = []
    read = zipfile.ZipExtFile.read

    def watched(self: zipfile.ZipExtFile, size: int = -1) -> bytes:
        asked.append(size)
        return read(self, size)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    iterator = iter(source)
    next(iterator)
    assert max(asked) < 1000, "the file has 16,000 bytes"
    assert sum(asked) < 1000
    assert min(asked) >= 0
