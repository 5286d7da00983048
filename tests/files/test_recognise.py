import io
import os
import tarfile
import zipfile
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxq.errors import NotAModel, OnnxqError
from onnxq.files import FileKind, load, recognise
from tests.files.models import linear_proto, tensor

MODEL = linear_proto().SerializeToString()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n"


def archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, MODEL)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("model.onnx"), io.BytesIO())
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


WRONG_FILES = {
    "empty": (b"", "empty-file", "stopped"),
    "lfs pointer": (POINTER, "lfs-pointer", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html>login</html>", "html", "download"),
    "html with mark": (b"\xef\xbb\xbf<HTML>", "html", "download"),
    "openvino": (b"<?xml version='1.0'?><net name='x'/>", "xml", "OpenVINO"),
    "zip": (archive("model.onnx"), "archive", "Unpack"),
    "torch zip": (archive("archive/data.pkl"), "torch-file", "torch.onnx.export"),
    "torch legacy": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch-file", "torch.onnx.export"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "archive", "Unpack"),
    "tar": (tar(), "archive", "Unpack"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00", "pickle", "torch.onnx.export"),
    "safetensors": (b"\x10\0\0\0\0\0\0\0" + b'{"a":{}}        ', "safetensors", "torch.onnx.export"),
    "gguf": (b"GGUF\x03\0\0\0", "gguf", "torch.onnx.export"),
    "tflite": (b"\x1c\0\0\0TFL3", "tflite", "tf2onnx"),
    "ort format": (b"\x1c\0\0\0ORTM", "ort-format", ".onnx"),
    "keras": (b"\x89HDF\r\n\x1a\n", "hdf5", "tf2onnx"),
    "numpy": (npy(), "numpy", "calibration"),
    "json": (b'{"graph": {}}', "json", ".onnx"),
    "onnx text": (b'<ir_version: 8, opset_import: ["": 18]> agraph () => () {}', "onnx-text", "parse_model"),
    "protobuf text": (b'ir_version: 8\nproducer_name: "x"', "onnx-text", "text_format"),
    "twice": (MODEL + MODEL, "concatenated", "appended"),
    "no graph": (onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString(), "no-graph", "tensor"),
    "tensor": (tensor("w", 4).SerializeToString(), "wrong-format", "protobuf"),
    "prose": (b"hello world, this is not a model", "wrong-format", "protobuf"),
    "endless number": (b"\x08" + b"\xff" * 20, "wrong-format", "protobuf"),
    "zeros": (bytes(1000), "wrong-format", "protobuf"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_named_with_a_way_out(name, tmp_path):
    content, slug, hint = WRONG_FILES[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(NotAModel, match=r"model\.onnx") as caught:
        load(path)
    assert caught.value.slug == slug == recognise(path).value
    assert hint in caught.value.hint


def test_every_kind_but_onnx_has_an_explanation(tmp_path):
    from onnxq.files.recognise import not_a_model

    for kind in set(FileKind) - {FileKind.ONNX}:
        assert not_a_model(tmp_path / "x", kind).hint


def test_a_missing_file_brings_up_the_similar_name(tmp_path):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    with pytest.raises(NotAModel) as caught:
        load(tmp_path / "modle.onnx")
    assert (caught.value.slug, "model.onnx" in caught.value.hint) == ("missing", True)


def test_a_directory_brings_up_the_models_inside(tmp_path):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    with pytest.raises(NotAModel) as caught:
        load(tmp_path)
    assert (caught.value.slug, "model.onnx" in caught.value.hint) == ("directory", True)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert recognise(tmp_path / "pipe") is FileKind.NOT_A_FILE
    assert recognise("/dev/zero") is FileKind.NOT_A_FILE


def test_an_unreadable_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    assert recognise(tmp_path / "x") is FileKind.UNREADABLE


def test_a_file_that_breaks_while_it_is_read(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    (tmp_path / "model.onnx").write_bytes(MODEL)
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(NotAModel) as caught:
        load(tmp_path / "model.onnx")
    assert caught.value.slug == "unreadable"


def test_a_file_of_endless_small_fields_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("onnxq.files.recognise"), "_MAX_FIELDS", 100)
    (tmp_path / "model.onnx").write_bytes(MODEL + b"\x42\x00" * 200)
    assert recognise(tmp_path / "model.onnx") is FileKind.UNKNOWN


def test_a_name_with_a_nul_is_missing():
    assert recognise("a\0b") is FileKind.MISSING


def test_a_model_cut_anywhere_is_known(tmp_path):
    """A cut is called truncated or, where it falls between two outer fields, a model that lacks something."""
    path = tmp_path / "model.onnx"
    proto = linear_proto(columns=3)
    del proto.opset_import[1:]
    model = proto.SerializeToString()
    slugs = Counter()
    for length in range(1, len(model)):
        path.write_bytes(model[:length])
        with pytest.raises(OnnxqError) as caught:
            load(path)
        slugs[caught.value.slug] += 1
    assert slugs == {"wrong-format": 1, "truncated": len(model) - 4, "no-graph": 1, "no-opset": 1}


def test_damage_gives_an_error_of_ours_or_a_model(tmp_path):
    """Flipped, removed and repeated bytes at seeded places."""
    random = np.random.default_rng(7)
    path = tmp_path / "model.onnx"
    refused = 0
    for _ in range(1500):
        damaged = bytearray(linear_proto(columns=3).SerializeToString())
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(damaged)))
            kind = random.integers(3)
            if kind == 0:
                damaged[place] ^= 1 << int(random.integers(8))
            elif kind == 1:
                del damaged[place : place + int(random.integers(1, 9))]
            else:
                damaged[place:place] = damaged[place : place + int(random.integers(1, 9))]
        path.write_bytes(damaged)
        try:
            load(path)
        except OnnxqError as error:
            refused += 1
            assert error.slug
    assert refused > 500


@pytest.mark.parametrize("name", ["empty", "lfs pointer", "prose"])
def test_a_link_to_a_wrong_file_is_followed(name, tmp_path):
    (tmp_path / "real").write_bytes(WRONG_FILES[name][0])
    (tmp_path / "link.onnx").symlink_to("real")
    assert recognise(tmp_path / "link.onnx").value == WRONG_FILES[name][1]
