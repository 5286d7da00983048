from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import runtime_graphs as graphs

from onnxq.errors import BackendError, UsageProblem
from onnxq.runtime import PROVIDERS, SessionSettings, delivery, open_session

X = np.arange(-4, 4, dtype=np.float32).reshape(2, 4)


def test_runs_a_model_in_memory_and_names_its_ports():
    session = open_session(graphs.relu())
    np.testing.assert_array_equal(session.run({"x": X})["y"], np.maximum(-X, 0))
    (x,) = session.inputs
    assert (x.name, x.dtype, x.shape, x.kind) == ("x", np.float32, ("n", 4), "tensor(float)")
    assert [port.name for port in session.outputs] == ["y"]


def test_the_same_inputs_give_the_same_bits():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((256, 256), np.float32)
    text = "g (float[n, 256] x) => (float[n, 256] y) { h = MatMul(x, w)\n y = Softmax(h) }"
    session = open_session(graphs.model(text, w=weight), SessionSettings(threads=2))
    x = rng.standard_normal((64, 256), np.float32)
    assert len({session.run({"x": x})["y"].tobytes() for _ in range(5)}) == 1


def test_bytes_and_paths(tmp_path):
    data = ir.to_proto(graphs.relu()).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    for source in (data, tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        np.testing.assert_array_equal(open_session(source).run({"x": X})["y"], np.maximum(-X, 0))


def test_only_the_outputs_asked_for_in_that_order():
    two = graphs.model("g (float[n] x) => (float[n] a, float[n] b) { a = Neg(x)\n b = Abs(x) }")
    assert list(open_session(two).run({"x": X[0]}, ["b", "a"])) == ["b", "a"]
    assert list(open_session(two).run({"x": X[0]}, ["b"])) == ["b"]


def test_taps_add_outputs_and_leave_the_model_alone():
    model = graphs.relu()
    session = open_session(model, SessionSettings(taps=("h", "y", "h")))
    found = session.run({"x": X})
    assert list(found) == ["y", "h"]
    np.testing.assert_array_equal(found["h"], -X)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert list(
        open_session(ir.to_proto(model).SerializeToString(), SessionSettings(taps=("h",))).run({"x": X})
    ) == [
        "y",
        "h",
    ]


def test_unknown_tap():
    with pytest.raises(UsageProblem, match="no value named 'q'"):
        open_session(graphs.relu(), SessionSettings(taps=("q",)))


def test_overridable_initializer_may_be_fed_or_not():
    model = graphs.model(
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32)
    )
    session = open_session(model)
    x = np.zeros(2, np.float32)
    assert [port.name for port in session.inputs] == ["x"]
    np.testing.assert_array_equal(session.run({"x": x})["y"], [1, 1])
    np.testing.assert_array_equal(session.run({"x": x, "w": x})["y"], [0, 0])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("bfloat16", ml_dtypes.bfloat16),
        ("float8e4m3fn", ml_dtypes.float8_e4m3fn),
        ("float8e5m2", ml_dtypes.float8_e5m2),
        ("int4", ml_dtypes.int4),
        ("uint4", ml_dtypes.uint4),
        ("int2", ml_dtypes.int2),
        ("uint2", ml_dtypes.uint2),
    ],
)
def test_types_that_numpy_lacks(kind, dtype):
    values = np.array([[1, -2, 1], [0, 1, -1], [-2, 1, 1]])
    x = (np.abs(values) if kind.startswith("u") else values).astype(dtype)
    text = f"g ({kind}[n, 3] x) => ({kind}[n, 3] y) {{ f = Cast<to = 1>(x)\n y = CastLike(f, x) }}"
    session = open_session(graphs.model(text, opset=25))
    found = session.run({"x": x})["y"]
    assert session.inputs[0].dtype == found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.float32), x.astype(np.float32))


def test_strings_and_sequences():
    text = """g (string[2] x, bool[n] b) => (string[2] y, seq(float[n]) z) {
        y = Identity(x)
        f = Cast<to = 1>(b)
        z = SequenceConstruct(f)
    }"""
    found = open_session(graphs.model(text)).run({"x": np.array(["a", "b"]), "b": np.array([True])})
    assert found["y"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(found["z"], [[1.0]])


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "no array for ['x']"),
        ({"x": X, "q": X}, "no input named ['q']"),
        ({"x": X[:, :3]}, "invalid dimensions"),
        ({"x": X[0]}, "Invalid rank"),
        ({"x": X.astype(np.float64)}, "tensor(double)"),
    ],
)
def test_feeds_that_do_not_fit(feeds, words):
    with pytest.raises(BackendError) as caught:
        open_session(graphs.relu()).run(feeds)
    assert caught.value.slug == "bad-feed"
    assert words in caught.value.message
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_unknown_output_name():
    with pytest.raises(BackendError, match="Invalid output name:q"):
        open_session(graphs.relu()).run({"x": X}, ["q"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[2] x) => (float[2] y) { [here] y = Nope(x) }", "at node 'here'"),
        ("g (float[2,3] x, float[2,3] z) => (float[2,3] y) { [here] y = MatMul(x, z) }", "at node 'here'"),
        ("g (float[2] x) => (float[2] y) { [here] y = com.microsoft.Nope(x) }", "com.microsoft:Nope"),
    ],
)
def test_models_that_the_runtime_refuses(text, words):
    with pytest.raises(BackendError) as caught:
        open_session(graphs.model(text))
    assert caught.value.slug == "refused"
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.__suppress_context__


def test_operator_that_fails_while_running(capfd):
    text = "g (float[2, n] x, float[m, 2] z) => (float[2, 2] y) { [here] y = MatMul(x, z) }"
    with pytest.raises(BackendError, match="at node 'here'") as caught:
        open_session(graphs.model(text)).run({"x": np.ones((2, 2), "f"), "z": np.ones((3, 2), "f")})
    assert caught.value.slug == "run-failed"
    assert capfd.readouterr().err == ""


def test_garbage_is_refused(capfd):
    with pytest.raises(BackendError, match="refuses the model") as caught:
        open_session(b"no model at all")
    assert caught.value.slug == "refused"
    assert capfd.readouterr().err == ""


def test_unknown_and_missing_providers_list_what_is_there():
    with pytest.raises(BackendError, match="'quantum'") as caught:
        open_session(graphs.relu(), SessionSettings(provider="quantum"))
    assert caught.value.slug == "no-provider"
    assert "cpu" in caught.value.hint
    import onnxruntime

    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        with pytest.raises(BackendError) as caught:
            open_session(graphs.relu(), SessionSettings(provider="cuda"))
        assert 'pip install "onnxq[gpu]"' in caught.value.hint


def test_missing_onnxruntime_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError) as caught:
        open_session(graphs.relu())
    assert caught.value.slug == "no-onnxruntime"
    assert 'pip install "onnxq[cpu]"' in caught.value.hint
    assert "exclude one another" in caught.value.hint


def test_disabled_optimizers_and_levels_change_the_graph_that_runs(tmp_path):
    text = "g (float[1, n, 4] x) => (float[1, n, 4] y) { h = Add(x, x)\n y = LayerNormalization(h, g, b) }"
    model = graphs.model(text, g=np.ones(4, "f"), b=np.zeros(4, "f"))

    def ops(**options):
        open_session(model, SessionSettings(optimized_to=tmp_path / "o.onnx", **options))
        import onnx

        proto = onnx.ModelProto.FromString((tmp_path / "o.onnx").read_bytes())
        return [node.op_type for node in proto.graph.node]

    assert ops() == ["SkipLayerNormalization"]
    assert ops(disabled_optimizers=("SkipLayerNormFusion",)) == ["Add", "LayerNormalization"]
    assert ops(level="disabled") == ["Add", "LayerNormalization"]


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_large_weights_are_read_where_they_are(monkeypatch, level):
    monkeypatch.setattr(delivery, "SMALLEST_DETACHED", 1000)
    monkeypatch.setattr(delivery, "SMALLEST_WEIGHT", 1000)
    rng = np.random.default_rng(0)
    parts = {
        "w": rng.standard_normal((64, 64)).astype("f"),
        "v": rng.integers(-100, 100, (64, 64)).astype(np.int8),
        "half": rng.standard_normal((64, 64)).astype(np.float16),
        "brain": rng.standard_normal((64, 64)).astype(ml_dtypes.bfloat16),
        "s": np.full(64, 0.02, "f"),
        "z": np.zeros(64, np.int8),
        "rows": np.array([0, 64], np.int64),
    }
    model = graphs.model(
        """
        g (float[n, 64] x) => (float[n, 64] y)
        {
          a = MatMul (x, w)
          d = DequantizeLinear <axis = 1> (v, s, z)
          b = MatMul (a, d)
          h = Cast <to = 1> (half)
          c = MatMul (b, h)
          e = Cast <to = 1> (brain)
          f = Add (c, e)
          y = Reshape (f, rows)
        }
        """,
        **parts,
    )
    detached = delivery.detach(model)
    assert set(detached.arrays) == {"w", "v", "half"}
    assert detached.arrays["w"] is not None
    assert len(detached.graph) < 64 * 64 * 4
    settings = SessionSettings(level=level)
    x = {"x": rng.standard_normal((64, 64)).astype("f")}
    found = open_session(model, settings).run(x)["y"]
    monkeypatch.setattr(delivery, "SMALLEST_DETACHED", 1 << 40)
    np.testing.assert_array_equal(found, open_session(model, settings).run(x)["y"])


def test_defaults_of_inputs_stay_in_the_graph(monkeypatch):
    monkeypatch.setattr(delivery, "SMALLEST_DETACHED", 1000)
    monkeypatch.setattr(delivery, "SMALLEST_WEIGHT", 1000)
    weight = np.full((64, 64), 2, "f")
    model = graphs.model(
        "g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) { y = MatMul(x, w) }", w=weight
    )
    assert not delivery.detach(model).arrays
    session = open_session(model)
    x = np.eye(64, dtype="f")
    np.testing.assert_array_equal(session.run({"x": x})["y"], weight)
    np.testing.assert_array_equal(session.run({"x": x, "w": weight * 3})["y"], weight * 3)


def test_a_model_too_large_for_one_message_goes_through_a_file(monkeypatch):
    monkeypatch.setattr(delivery, "LARGEST_MESSAGE", 100)
    made = []
    monkeypatch.setattr(delivery.tempfile, "mkdtemp", _recording(made, delivery.tempfile.mkdtemp))
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype("f")
    session = open_session(
        graphs.model("g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }", w=weight)
    )
    x = np.eye(64, dtype="f")
    np.testing.assert_allclose(session.run({"x": x})["y"], weight, rtol=1e-6)
    (folder,) = made
    assert (folder / "model.onnx").exists()
    del session
    assert not folder.exists()


def _recording(made, make):
    from pathlib import Path

    def recorded(*args, **options):
        folder = make(*args, **options)
        made.append(Path(folder))
        return folder

    return recorded
