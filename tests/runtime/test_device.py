"""Timing over ssh, against a real server on this machine."""

from __future__ import annotations

import ast
import io
import shlex
import sys
import threading
import time
import zipfile
from pathlib import Path

import loopback
import numpy as np
import onnx
import pytest
import runtime_graphs

from onnxq.errors import BackendError, UsageProblem
from onnxq.runtime import Watch, open_contest, read_machine
from onnxq.runtime.device import Device, archive
from onnxq.runtime.ssh import Host, command_for

QUICK = Watch(rounds=2, seconds=0.02)
NEW_OPERATOR = "agraph (float[2] x) => (float[2] y) { y = com.example.FromTheFuture(x) }"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with loopback.serving(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture
def device(server):
    with Device(server.host, python=sys.executable, ssh=server.ssh) as found:
        yield found
    assert not list(server.scratch.iterdir())


def odd_model(folder: Path) -> Path:
    """A model whose own name, and whose data's, would mean something to a shell."""
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    proto = onnx.ModelProto()
    proto.CopyFrom(onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[batch, 4] x) => (float[batch, 4] y) '
        "<float[4, 4] w> { y = MatMul(x, w) }"
    ))  # fmt: skip
    del proto.graph.initializer[:]
    location = "the weights; $(touch pwned) 'of'.bin"
    (folder / location).write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        weight.external_data.add(key=key, value=value)
    proto.graph.initializer.append(weight)
    path = folder / 'my model\'s "best" $HOME.onnx'
    path.write_bytes(proto.SerializeToString())
    return path


def test_models_are_timed_there_and_nothing_stays(device, server, tmp_path):
    models = {"odd": odd_model(tmp_path), "in memory": runtime_graphs.relu()}
    with open_contest(models, QUICK, device) as contest:
        feeds = contest.feeds(None)
        found = contest.measure(feeds)
        traced = contest.trace("odd", feeds["odd"], 1)
        assert any(server.scratch.iterdir())
    assert {entry["op"] for entry in traced} == {"MatMul"}
    for each in found.values():
        assert (each.processes, each.threads, each.io) == (2, 1, "host")
        assert 0 < each.least_ms <= each.median_ms
        assert each.peak_rss_mb > 10
    assert found["odd"].verdict == ""
    assert not list(Path.cwd().glob("pwned")) + list(Path.home().glob("pwned"))


def test_the_machine_is_the_one_at_the_other_end(device):
    here = read_machine()
    assert (device.machine.cpu, device.machine.runtime) == (here.cpu, here.runtime)
    assert device.python == sys.version.split()[0]
    assert device.processors_for(1)


def test_what_the_runtime_there_refuses(device):
    models = {"m": runtime_graphs.model(NEW_OPERATOR)}
    with (
        pytest.raises(BackendError, match="FromTheFuture") as caught,
        open_contest(models, QUICK, device) as it,
    ):
        it.measure({"m": {"x": np.zeros(2, np.float32)}})
    assert caught.value.slug == "refused"
    assert caught.value.message.startswith(f"on {device.name}: ")


def test_inputs_that_do_not_fit(device):
    with (
        pytest.raises(BackendError) as caught,
        open_contest({"m": runtime_graphs.relu()}, QUICK, device) as it,
    ):
        it.measure({"m": {"x": np.zeros((2, 3, 4), np.float32)}})
    assert caught.value.slug == "bad-feed"


def test_a_model_that_takes_too_long(device):
    with (
        open_contest({"m": runtime_graphs.relu()}, Watch(rounds=1, seconds=60, limit=1.0), device) as contest,
        pytest.raises(BackendError, match="gave no answer in 1 s") as caught,
    ):
        contest.measure(contest.feeds(None))
    assert caught.value.slug == "timeout"


def test_a_provider_that_is_not_there(device):
    contest = open_contest({"m": runtime_graphs.relu()}, Watch(provider="qnn"), device)
    with pytest.raises(BackendError, match="'qnn' in the onnxruntime of") as caught, contest:
        pytest.fail("it opened")
    assert "pip install onnxruntime-qnn" in caught.value.hint
    assert "cpu" in caught.value.hint


def test_a_broken_connection_leaves_nothing_behind(server):
    slow, models = Watch(rounds=1, seconds=60), {"m": runtime_graphs.relu()}
    with (
        Device(server.host, python=sys.executable, ssh=server.ssh) as device,
        open_contest(models, slow, device) as contest,
        pytest.raises(BackendError) as caught,
    ):
        threading.Timer(1.5, device._link._process.kill).start()
        contest.measure(contest.feeds(None))
    assert caught.value.slug in ("host-failed", "unreachable")
    for _ in range(200):
        if not list(server.scratch.iterdir()):
            return
        time.sleep(0.05)
    pytest.fail(f"left behind: {list(server.scratch.rglob('*'))}")


def refused(server, **changes):
    with pytest.raises(BackendError) as caught:
        Device(
            changes.get("host", server.host),
            python=changes.get("python", sys.executable),
            ssh=changes.get("ssh", server.ssh),
        )
    assert not list(server.scratch.iterdir())
    return caught.value


def test_there_is_no_python(server):
    problem = refused(server, python="/nowhere/python 3")
    assert problem.slug == "no-python"
    assert "/nowhere/python 3" in problem.message
    assert "--host-python" in problem.hint


def test_python_lacks_the_runtime(server, tmp_path):
    bare = loopback.interpreter(tmp_path / "a python's name", "-S")
    problem = refused(server, python=bare)
    assert problem.slug == "no-onnxruntime"
    assert "-m pip install onnxruntime numpy" in problem.hint


def test_nobody_listens(server):
    problem = refused(server, host="127.0.0.1:1")
    assert problem.slug == "unreachable"


def test_a_key_that_nobody_knows(server, tmp_path):
    (tmp_path / "known").write_text("")
    problem = refused(server, ssh=(*server.ssh, f"-oUserKnownHostsFile={tmp_path / 'known'}"))
    assert problem.slug == "unknown-host-key"


def test_a_login_that_is_not_ours(server, tmp_path):
    problem = refused(server, ssh=(*server.ssh, "-oIdentityFile=/dev/null", "-oPubkeyAuthentication=no"))
    assert problem.slug == "login-refused"


def test_there_is_no_ssh(server):
    problem = refused(server, ssh=("ssh-that-is-not-there",))
    assert problem.slug == "no-ssh"
    assert "openssh-client" in problem.hint


@pytest.mark.parametrize(
    ("text", "destination", "port"),
    [
        ("pi@edge", "pi@edge", None),
        ("edge.local:2222", "edge.local", 2222),
        ("a.b+c@10.0.0.7:22", "a.b+c@10.0.0.7", 22),
        ("root@[fe80::1%eth0]:22", "root@fe80::1%eth0", 22),
    ],
)
def test_hosts(text, destination, port):
    assert Host.parse(text) == Host(destination, port)


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=touch x", "pi@-oProxyCommand=x", "-l@host", "a b", "a;b", "a$(b)", "a`b`", "a\nb",
     "pi@edge:", "pi@edge:0", "pi@edge:99999", "pi@@edge", "pi@", "ssh://edge", "a'b", 'a"b', "édge"],
)  # fmt: skip
def test_what_is_no_host(text):
    with pytest.raises(UsageProblem) as caught:
        Host.parse(text)
    assert caught.value.slug == "bad-host"


def test_the_interpreter_is_one_word_to_the_shell_there():
    words = command_for(Host("edge", 7), 5, "~/it's; here/python", ("ssh", "-i", "a key"))
    assert words[:3] == ["ssh", "-i", "a key"]
    assert words[-5:-1] == ["-p", "7", "--", "edge"]
    assert words[-1].startswith("""~/'it'"'"'s; here/python' -c '""")
    name, flag, _ = shlex.split(words[-1])
    assert (name, flag) == ("~/it's; here/python", "-c")
    for wrong in ("-c", "", "python\n3"):
        with pytest.raises(UsageProblem):
            command_for(Host("edge"), 5, wrong, ("ssh",))


def test_what_goes_there_needs_nothing_of_this_package():
    known = {*sys.stdlib_module_names, "numpy", "onnxruntime"}
    with zipfile.ZipFile(io.BytesIO(archive())) as packed:
        assert packed.namelist() == ["__main__.py", "stopwatch.py", "machine.py"]
        for name in packed.namelist():
            tree = ast.parse(packed.read(name), feature_version=(3, 8))
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    assert {each.name.split(".")[0] for each in node.names} <= known
                elif isinstance(node, ast.ImportFrom):
                    assert str(node.module).split(".")[0] in known
    assert archive() == archive()
