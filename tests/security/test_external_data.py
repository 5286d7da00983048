import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxq.errors import ExternalDataError, InvalidModel, LimitExceeded, UnsupportedModel
from onnxq.files import from_proto, load, save
from onnxq.files.tensors import sites
from tests.security.attacks import ATTACKS, PLACES, SECRET, SPARSE, Attack, evil_tensor

OPENED: list[str] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


sys.addaudithook(_watch)


@pytest.fixture
def opened():
    """Names of files that are opened while the test runs."""
    global OPENED
    OPENED = []
    yield OPENED
    OPENED = None


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The model's folder, and another one with a secret."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    return inside, outside


def expected_error(slug: str) -> type[Exception]:
    if slug.startswith("max-"):
        return LimitExceeded
    return InvalidModel if slug == "unknown-dtype" else ExternalDataError


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_wherever_it_sits(name, place, folders, opened):
    inside, outside = folders
    attack = ATTACKS[name]
    attack.prepare(inside, outside)
    proto = PLACES[place](evil_tensor(attack, outside))
    (inside / "model.onnx").write_bytes(proto.SerializeToString())
    opened.clear()
    with pytest.raises(expected_error(attack.slug)) as caught:
        load(inside / "model.onnx")
    assert caught.value.slug == attack.slug
    assert not [path for path in opened if path.endswith(("secret", "environ", "zero"))]


@pytest.mark.parametrize("place", PLACES)
def test_honest_external_data_is_read_wherever_it_sits(place, folders):
    inside, outside = folders
    (inside / "sub").mkdir()
    (inside / "sub" / "data").write_bytes(b"pad!" + SECRET)
    digest = hashlib.sha1((inside / "sub" / "data").read_bytes()).hexdigest()
    honest = Attack("", "./sub/data", entries=(("offset", "4"), ("length", "16"), ("checksum", digest)))
    (inside / "model.onnx").write_bytes(PLACES[place](evil_tensor(honest, outside)).SerializeToString())
    if place in SPARSE:
        with pytest.raises(UnsupportedModel) as caught:
            load(inside / "model.onnx")
        assert caught.value.slug == place.replace(" ", "-")
        return
    (site,) = sites(load(inside / "model.onnx"))
    assert site.tensor.tobytes() == SECRET


def test_a_proto_without_a_file_has_no_external_data(folders):
    inside, outside = folders
    (inside / "data").write_bytes(SECRET)
    proto = PLACES["initializer"](evil_tensor(Attack(""), outside))
    with pytest.raises(ExternalDataError) as caught:
        from_proto(proto)
    assert caught.value.slug == "no-folder"
    assert len(list(sites(from_proto(proto, path=inside / "model.onnx")))) == 1


def test_each_checksum_of_a_file_is_checked(folders):
    inside, outside = folders
    (inside / "data").write_bytes(SECRET)
    right = Attack("", entries=(("checksum", hashlib.sha1(SECRET).hexdigest().upper()),))
    proto = PLACES["initializer"](evil_tensor(right, outside))
    assert from_proto(proto, path=inside / "model.onnx")
    wrong = evil_tensor(Attack("", location="./data", entries=(("checksum", "0" * 40),)), outside)
    wrong.name = "wrong"
    proto.graph.initializer.append(wrong)
    with pytest.raises(ExternalDataError) as caught:
        from_proto(proto, path=inside / "model.onnx")
    assert caught.value.slug == "checksum-mismatch"


def test_the_checked_file_is_the_read_file(folders, monkeypatch):
    """A file that becomes a link after it was looked at is not followed."""
    inside, outside = folders
    (inside / "data").write_bytes(SECRET)
    proto = PLACES["initializer"](evil_tensor(Attack(""), outside))
    real = os.open

    def swap(path, *arguments, **where):
        if path == "data":
            (inside / "data").unlink()
            (inside / "data").symlink_to(outside / "secret")
        return real(path, *arguments, **where)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(ExternalDataError) as caught:
        from_proto(proto, path=inside / "model.onnx")
    assert caught.value.slug == "unreadable"


def hub_cache(root: Path, below: str = "") -> Path:
    """A model and its data as the hub's cache keeps them; gives the path of the model in its snapshot."""
    repository = root / "models--some--model"
    snapshot = repository / "snapshots" / "0123abc" / below
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    proto = PLACES["initializer"](evil_tensor(Attack("", "model.onnx_data"), root))
    up = "../" * (2 + len(Path(below).parts))
    for name, blob, content in (
        ("model.onnx", "aa", proto.SerializeToString()),
        ("model.onnx_data", "bb", SECRET),
    ):
        (repository / "blobs" / blob).write_bytes(content)
        (snapshot / name).symlink_to(f"{up}blobs/{blob}")
    return snapshot / "model.onnx"


@pytest.mark.parametrize("below", ["", "onnx"])
def test_the_hub_cache_is_accepted(below, tmp_path, monkeypatch):
    model = hub_cache(tmp_path, below)
    (site,) = sites(load(model))
    assert site.tensor.tobytes() == SECRET
    (tmp_path / "latest").symlink_to(model.parent)
    assert len(list(sites(load(tmp_path / "latest" / "model.onnx")))) == 1
    (tmp_path / "shortcut.onnx").symlink_to(model)
    assert len(list(sites(load(tmp_path / "shortcut.onnx")))) == 1
    monkeypatch.chdir(model.parent)
    assert len(list(sites(load("model.onnx")))) == 1


def test_a_blob_may_have_several_names(tmp_path):
    model = hub_cache(tmp_path)
    blob = model.parent.parent.parent / "blobs" / "bb"
    os.link(blob, tmp_path / "other")
    assert len(list(sites(load(model)))) == 1


@pytest.mark.parametrize(
    ("target", "slug"),
    [
        ("../../../secret", "symlink"),
        ("../../blobs/../../secret", "symlink"),
        ("../../blobs/sub/bb", "symlink"),
        ("/etc/hostname", "symlink"),
        ("../../blobs/link", "symlink"),
        ("../../blobs/pipe", "not-regular"),
        ("../../blobs/gone", "missing"),
    ],
)
def test_a_cache_link_to_anything_but_a_blob_is_refused(target, slug, tmp_path, opened):
    model = hub_cache(tmp_path)
    blobs = model.parent.parent.parent / "blobs"
    (tmp_path / "secret").write_bytes(SECRET)
    (blobs / "link").symlink_to("../../secret")
    os.mkfifo(blobs / "pipe")
    data = model.parent / "model.onnx_data"
    data.unlink()
    data.symlink_to(target)
    opened.clear()
    with pytest.raises(ExternalDataError) as caught:
        load(model)
    assert caught.value.slug == slug
    assert not [path for path in opened if path.endswith("secret")]


def test_blobs_that_are_a_link_are_no_cache(tmp_path):
    model = hub_cache(tmp_path)
    blobs = model.parent.parent.parent / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExternalDataError):
        load(model)


def test_data_beside_the_file_that_a_link_leads_to(folders):
    inside, outside = folders
    (inside / "data").write_bytes(SECRET)
    proto = PLACES["initializer"](evil_tensor(Attack(""), outside))
    (inside / "model.onnx").write_bytes(proto.SerializeToString())
    (outside / "shortcut.onnx").symlink_to(inside / "model.onnx")
    assert len(list(sites(load(outside / "shortcut.onnx")))) == 1


def test_a_file_per_tensor(tmp_path):
    """More files than a process may hold open: small ones are read, not mapped."""
    proto = PLACES["initializer"](evil_tensor(Attack("", "t0"), tmp_path))
    (tmp_path / "t0").write_bytes(SECRET)
    for index in range(1, 1500):
        (tmp_path / f"t{index}").write_bytes(SECRET)
        extra = evil_tensor(Attack("", f"t{index}"), tmp_path)
        extra.name = f"extra{index}"
        proto.graph.initializer.append(extra)
    assert len(list(sites(from_proto(proto, path=tmp_path / "model.onnx")))) == 1500


def test_data_beyond_four_gib_is_mapped_not_read(tmp_path):
    with open(tmp_path / "data", "wb") as file:
        file.truncate(5 << 30)  # a hole: takes no space
        file.seek((5 << 30) - 16)
        file.write(SECRET)
    here = Attack("", entries=(("offset", str((5 << 30) - 16)),))
    model = from_proto(PLACES["initializer"](evil_tensor(here, tmp_path)), path=tmp_path / "model.onnx")
    (site,) = sites(model)
    assert site.tensor.tobytes() == SECRET


def test_loaded_data_outlives_its_file(tmp_path):
    data = np.arange(1 << 19, dtype=np.float32)
    (tmp_path / "data").write_bytes(data.tobytes())
    model = from_proto(
        PLACES["initializer"](evil_tensor(Attack("", dims=data.shape), tmp_path)),
        path=tmp_path / "model.onnx",
    )
    (tmp_path / "data").unlink()
    save(model, tmp_path / "new.onnx")
    (tensor,) = onnx.ModelProto.FromString((tmp_path / "new.onnx").read_bytes()).graph.initializer
    assert tensor.raw_data == data.tobytes()
