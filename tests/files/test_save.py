import os
import re
import stat
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import EncodeError

from onnxq.errors import OutputError
from onnxq.files import fingerprint, from_proto, load, save, to_bytes
from tests.files.models import linear, linear_proto

ROOT = Path(__file__).parents[2]
DATA = re.compile(r"model\.onnx\.[0-9a-f]{16}\.data")


def listing(folder):
    return sorted(os.listdir(folder))


def data_of(folder):
    (name,) = (name for name in os.listdir(folder) if DATA.fullmatch(name))
    return folder / name


def weights(model):
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


@pytest.mark.parametrize("external", [False, True])
def test_a_saved_model_is_the_model(external, tmp_path):
    model = linear()
    before = to_bytes(model)
    save(model, tmp_path / "model.onnx", external=external)
    assert to_bytes(load(tmp_path / "model.onnx")) == before == to_bytes(model)
    assert fingerprint(load(tmp_path / "model.onnx")) == fingerprint(model)
    assert len(listing(tmp_path)) == 1 + external


@pytest.mark.parametrize("external", [False, True])
def test_the_runtime_reads_it(external, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    save(linear(), tmp_path / "model.onnx", external=external)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    x = np.ones((2, 4), np.float32)
    expected = x @ weights(linear())["w"] + weights(linear())["b"]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5)


def test_only_large_tensors_move_and_lie_on_pages(tmp_path):
    save(linear(columns=300), tmp_path / "model.onnx", external=True)
    save(linear(columns=5), tmp_path / "small.onnx", external=True)
    proto = onnx.ModelProto.FromString((tmp_path / "model.onnx").read_bytes())
    entries = {t.name: {e.key: e.value for e in t.external_data} for t in proto.graph.initializer}
    location = data_of(tmp_path).name
    assert entries["w"] == {"location": location, "offset": "0", "length": "4800"}
    assert entries["b"] == {"location": location, "offset": "8192", "length": "1200"}
    assert onnx.ModelProto.FromString((tmp_path / "small.onnx").read_bytes()).graph.initializer[0].raw_data


def test_constants_move_too(tmp_path):
    proto = linear_proto()
    constant = onnx.helper.make_node("Constant", [], ["w"], value=proto.graph.initializer[0])
    proto.graph.node.insert(0, constant)
    del proto.graph.initializer[0]
    model = from_proto(proto)
    save(model, tmp_path / "model.onnx", external=True)
    assert data_of(tmp_path).stat().st_size == 4096 + 4800
    assert to_bytes(load(tmp_path / "model.onnx")) == to_bytes(model)
    runtime = pytest.importorskip("onnxruntime")
    assert runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])


def test_data_moves_out_by_itself_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("onnxq.files.save"), "_INLINE_LIMIT", 1000)
    save(linear(), tmp_path / "model.onnx")
    assert len(listing(tmp_path)) == 2


def test_a_tensor_kept_twice_is_written_once(tmp_path):
    tied = ir.tensor(np.arange(1000, dtype=np.float32))
    model = linear(columns=250)
    values = model.graph.initializers
    values["w"].const_value = values["b"].const_value = tied
    save(model, tmp_path / "model.onnx", external=True)
    assert data_of(tmp_path).stat().st_size == 4000


def test_tensors_of_other_makers_are_taken_in(tmp_path):
    """A reference to a file elsewhere, a lazy tensor, four-bit numbers."""
    array = np.arange(1200, dtype=np.float32).reshape(4, 300)
    (tmp_path / "elsewhere").mkdir()
    array.tofile(tmp_path / "elsewhere" / "weights")
    model = linear()
    outer = ir.ExternalTensor(
        "weights",
        0,
        4800,
        ir.DataType.FLOAT,
        shape=ir.Shape([4, 300]),
        name="w",
        base_dir=tmp_path / "elsewhere",
    )
    lazy = ir.LazyTensor(
        lambda: ir.tensor(array[0]), dtype=ir.DataType.FLOAT, shape=ir.Shape([300]), name="b"
    )
    model.graph.initializers["w"].const_value = outer
    model.graph.initializers["b"].const_value = lazy
    for external in (False, True):
        save(model, tmp_path / "model.onnx", external=external)
        np.testing.assert_equal(weights(load(tmp_path / "model.onnx")), {"w": array, "b": array[0]})
    assert model.graph.initializers["w"].const_value is outer


def test_saving_over_the_mapped_source(tmp_path):
    path = tmp_path / "model.onnx"
    save(linear(columns=1 << 17), path, external=True)
    model = load(path)
    before = to_bytes(model)
    for external in (True, False, True):
        save(model, path, external=external)
        assert to_bytes(load(path)) == before
    assert np.isfinite(weights(model)["w"]).all()


def test_superseded_data_goes_and_foreign_data_stays(tmp_path):
    path = tmp_path / "model.onnx"
    foreign = ["model.onnx.data", "model.onnx_data", "other.onnx.0123456789abcdef.data", "model.onnx.bak"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"")
    save(linear(seed=1), path, external=True)
    first = data_of(tmp_path).name
    save(linear(seed=2), path, external=True)
    assert first != data_of(tmp_path).name
    save(linear(seed=3), path, external=False)
    assert listing(tmp_path) == sorted([*foreign, "model.onnx"])


def test_leftovers_of_a_killed_save_are_cleaned(tmp_path):
    (tmp_path / ".model.onnx.0123abcd.onnxq-draft").write_bytes(b"half")
    (tmp_path / "model.onnx.0123456789abcdef.data").write_bytes(b"whole, but its model never came")
    (tmp_path / ".other.onnx.0123abcd.onnxq-draft").write_bytes(b"someone else's")
    save(linear(), tmp_path / "model.onnx")
    assert listing(tmp_path) == [".other.onnx.0123abcd.onnxq-draft", "model.onnx"]


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "model.onnx").symlink_to("precious")
    save(linear(), tmp_path / "model.onnx")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "model.onnx").is_symlink()


def test_permissions_of_the_target_are_kept(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    save(linear(), path, external=True)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in listing(tmp_path)} == {0o640}


@pytest.mark.parametrize(
    ("target", "slug"),
    [
        ("folder", "is-directory"),
        ("nowhere/model.onnx", "no-folder"),
        ("pipe", "not-regular"),
        ("file/x", "no-folder"),
    ],
)
def test_a_target_that_is_no_place_for_a_file(target, slug, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    before = listing(tmp_path)
    with pytest.raises(OutputError) as caught:
        save(linear(), tmp_path / target)
    assert caught.value.slug == slug
    assert listing(tmp_path) == before


def test_a_model_over_two_gib_asks_for_external_data(tmp_path):
    model = linear()
    endless = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**29, 1), (0, 0))  # takes no memory
    model.graph.initializers["w"].const_value = ir.tensor(endless, name="w")
    with pytest.raises(OutputError) as caught:
        save(model, tmp_path / "model.onnx", external=False)
    assert caught.value.slug == "over-2-gib"
    assert listing(tmp_path) == []


def test_a_graph_that_protobuf_refuses_asks_for_external_data(tmp_path, monkeypatch):
    def refuse(*_):
        raise EncodeError("too large")

    monkeypatch.setattr(ir.serde, "serialize_model", refuse)
    with pytest.raises(OutputError) as caught:
        to_bytes(linear())
    assert caught.value.slug == "over-2-gib"


def test_a_model_that_has_no_written_form_is_an_error_of_ours():
    proto = linear_proto()
    proto.graph.node[0].device_configurations.add()  # of no device
    with pytest.raises(OutputError) as caught:
        to_bytes(from_proto(proto))
    assert caught.value.slug == "not-serializable"


def test_an_initializer_without_data_is_not_dropped(tmp_path):
    model = linear()
    model.graph.initializers["w"].const_value = None
    with pytest.raises(Exception, match="no data"):
        save(model, tmp_path / "model.onnx")
    assert listing(tmp_path) == []


def test_the_same_model_gives_the_same_bytes_in_every_process(tmp_path):
    code = (
        "import sys; from tests.files.models import linear; from onnxq.files import save, fingerprint;"
        "save(linear(), sys.argv[1], external=True); print(fingerprint(linear()))"
    )
    results = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        command = [sys.executable, "-c", code, str(folder / "model.onnx")]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
        results.append((run.stdout, {name: (folder / name).read_bytes() for name in listing(folder)}))
    assert results[0] == results[1]


def test_savers_to_one_target_take_turns(tmp_path):
    path = tmp_path / "model.onnx"
    models = [linear(seed=seed) for seed in range(4)]
    prints = {fingerprint(model) for model in models}
    errors = []

    def work(model):
        try:
            for _ in range(5):
                save(model, path, external=True)
        except OutputError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert fingerprint(load(path)) in prints
    assert len(listing(tmp_path)) == 2
