from __future__ import annotations

import platform
from dataclasses import replace

import pytest

from onnxq.runtime.hazards import hazards_of, probe_pad_into_maxpool
from onnxq.runtime.machine import Machine, Runtime, processors_for, read_machine

X86 = """processor\t: 0
model name\t: Imaginary CPU @ 3 GHz
flags\t\t: fpu avx2 avx512f avx512_vnni sse4_2
processor\t: 1
model name\t: Imaginary CPU @ 3 GHz
flags\t\t: fpu avx2 avx512f avx512_vnni sse4_2
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"
RUNTIME = Runtime("1.32.0", "", ("CPUExecutionProvider",), ("onnxruntime",))
PLAIN = Machine("Linux", "x86_64", "some", ("avx2", "avx512_vnni"), 4, 4, None, 8 << 30, RUNTIME)


def system(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine():
    machine = read_machine()
    assert machine.usable >= 1
    assert machine.cores >= 1
    assert machine.memory_bytes > 1 << 28
    assert machine.cpu
    assert machine.runtime is not None
    assert "CPUExecutionProvider" in machine.runtime.providers
    assert machine.runtime.packages


@pytest.mark.skipif(platform.system() != "Linux", reason="reads Linux's files")
def test_files_of_a_linux_machine(tmp_path):
    cpu = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": X86,
        "proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\n",
        f"{cpu}/cpu0/topology/thread_siblings_list": "0,2\n",
        f"{cpu}/cpu2/topology/thread_siblings_list": "0,2\n",
        f"{cpu}/cpu1/topology/thread_siblings_list": "1-1,3\n",
        f"{cpu}/cpu3/topology/thread_siblings_list": "1,3\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/memory.max": "8388608\n",
    }
    machine = read_machine(system(tmp_path, files))
    assert machine.cpu == "Imaginary CPU @ 3 GHz"
    assert machine.features == ("avx2", "avx512f", "avx512_vnni")
    assert machine.cores == 2
    assert machine.quota == 1.5
    assert machine.memory_bytes == 8 << 20


@pytest.mark.skipif(platform.system() != "Linux", reason="reads Linux's files")
@pytest.mark.parametrize(("text", "quota"), [("max 100000\n", None), ("200000 100000\n", 2.0), ("", None)])
def test_quota(tmp_path, text, quota):
    machine = read_machine(system(tmp_path, {"proc/cpuinfo": ARM, "sys/fs/cgroup/cpu.max": text}))
    assert machine.quota == quota
    assert machine.features == ("asimddp", "i8mm")


def test_processors_are_of_different_cores_first(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxq.runtime.machine._allowed", lambda: [0, 1, 2, 3])
    cpu = "sys/devices/system/cpu"
    siblings = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}
    system(tmp_path, {f"{cpu}/cpu{i}/topology/thread_siblings_list": text for i, text in siblings.items()})
    assert processors_for(1, tmp_path) == [0]
    assert processors_for(2, tmp_path) == [0, 2]
    assert processors_for(3, tmp_path) == [0, 1, 2]
    assert processors_for(5, tmp_path) == []
    assert processors_for(0, tmp_path) == []


@pytest.mark.parametrize(
    ("machine", "slug"),
    [
        (replace(PLAIN, runtime=None), "no-onnxruntime"),
        (
            replace(PLAIN, runtime=replace(RUNTIME, packages=("onnxruntime", "onnxruntime-gpu"))),
            "two-runtimes",
        ),
        (replace(PLAIN, features=("avx2", "avx512f")), "saturation"),
        (replace(PLAIN, architecture="aarch64", features=("sve",)), "no-dot-product"),
        (replace(PLAIN, quota=1.5), "few-processors"),
        (replace(PLAIN, runtime=replace(RUNTIME, version="1.31.1")), "vector-scale"),
    ],
)
def test_hazards_appear_where_they_apply_and_only_there(machine, slug):
    assert slug in {hazard.slug for hazard in hazards_of(machine)}
    assert slug not in {hazard.slug for hazard in hazards_of(PLAIN)}


def test_hazards_of_an_ordinary_machine():
    assert [hazard.slug for hazard in hazards_of(PLAIN)] == [
        "x64-precision",
        "signed-activations",
        "scalar-skip-norm",
    ]
    arm = replace(PLAIN, architecture="aarch64", features=("asimddp",))
    assert [hazard.slug for hazard in hazards_of(arm)] == ["scalar-skip-norm"]


def test_padded_maxpool_is_right_in_the_versions_known_to_be():
    machine = read_machine()
    assert machine.runtime is not None
    hazard = probe_pad_into_maxpool()
    if machine.runtime.version.startswith("1.31."):
        assert hazard is not None
    if machine.runtime.version.startswith("1.32."):
        assert hazard is None
