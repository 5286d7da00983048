from __future__ import annotations

import pytest

from onnxq.errors import UsageProblem
from onnxq.runtime.machine import Machine
from onnxq.targets import TARGETS, detect, find
from onnxq.targets.rules import FOREIGN, RULES

CPUS = ["x86-vnni", "x86-avx2", "x86-amx", "arm-dot", "arm-i8mm"]


def machine(architecture, *features):
    return Machine("Linux", architecture, "some", features, 4, 4, None, 8 << 30, None)


@pytest.mark.parametrize(
    ("architecture", "features", "name"),
    [
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), "x86-vnni"),
        ("x86_64", ("avx2", "avx_vnni"), "x86-vnni"),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni", "amx_int8"), "x86-amx"),
        ("x86_64", ("avx2", "avx512f"), "x86-avx2"),
        ("x86_64", ("avx2",), "x86-avx2"),
        ("aarch64", ("asimddp",), "arm-dot"),
        ("aarch64", ("asimddp", "i8mm"), "arm-i8mm"),
        ("aarch64", (), "qdq"),
        ("riscv64", (), "qdq"),
    ],
)
def test_detect(architecture, features, name):
    assert detect(machine(architecture, *features)) is TARGETS[name]


def test_only_processors_are_guessed():
    everything = ("avx2", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
    for architecture in ("x86_64", "aarch64", "other"):
        assert detect(machine(architecture, *everything)).provider in ("cpu", "any")


def test_seven_bits_where_sums_saturate():
    largest = {name: 2 ** (find(name).weight_bits - 1) - 1 for name in ("x86-vnni", "x86-amx", "x86-avx2")}
    # vpmaddubsw adds two products of a uint8 and a weight in 16 bits
    assert 2 * 255 * largest["x86-avx2"] < 1 << 15 <= 2 * 255 * largest["x86-vnni"]
    assert largest["x86-amx"] == largest["x86-vnni"]


def test_activations_are_unsigned_on_x86_and_signed_elsewhere():
    types = {name: target.activation_type for name, target in TARGETS.items()}
    assert {name for name, kind in types.items() if kind == "uint8"} == {
        "x86-vnni",
        "x86-avx2",
        "x86-amx",
        "openvino",
        "qdq",
    }
    assert {name for name, kind in types.items() if kind is None} == {"cuda"}
    symmetric = {name for name, target in TARGETS.items() if target.activation_symmetric}
    assert symmetric == {"tensorrt", "qdq-symmetric"}
    assert all(TARGETS[name].activation_type == "int8" for name in symmetric)
    assert TARGETS["arm-i8mm"].activation_codes == "signed"
    assert TARGETS["tensorrt"].activation_codes == "symmetric"
    assert TARGETS["x86-vnni"].activation_codes == "asymmetric"


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_target_forbids_what_it_emits(target):
    opposite = {"uint8": "unsigned-activation", "int8": "signed-activation", None: ""}
    assert opposite[target.activation_type] not in target.forbidden
    assert ("integer-bias" in target.forbidden) <= (target.bias_type != "int32")
    assert ("wide-weight" in target.forbidden) == (target.weight_bits == 7)
    assert (FOREIGN in target.forbidden) == (target.format == "qdq")
    assert bool(target.block_bits) == bool(target.block_sizes) == (target.format != "qdq")


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_form_that_is_forbidden_has_a_rule_and_a_reason(target):
    assert set(target.forbidden) <= {*RULES, FOREIGN}
    assert all(len(reason) > 20 for reason in target.forbidden.values())


def test_every_rule_is_of_use():
    assert {slug for target in TARGETS.values() for slug in target.forbidden} == {*RULES, FOREIGN}


def test_kernels_are_confirmed_where_the_cpu_provider_has_them():
    assert [name for name, target in TARGETS.items() if target.confirmable] == [*CPUS, "qdq"]


def test_small_linears_do_not_pay():
    target = find("x86-vnni")
    assert target.pays(target.smallest_depth, target.smallest_width)
    assert not target.pays(target.smallest_depth - 1, 4096)
    assert not target.pays(4096, target.smallest_width - 1)


def test_unknown_target_names_the_nearest():
    with pytest.raises(UsageProblem) as caught:
        find("x86-vni")
    assert caught.value.exit_code == 2
    assert "did you mean 'x86-vnni'?" in caught.value.hint
    with pytest.raises(UsageProblem) as caught:
        find("quantum")
    assert "did you mean" not in caught.value.hint
    assert "arm-dot" in caught.value.hint


def test_targets_can_be_told_apart_by_hash_and_name():
    assert len({hash(target) for target in TARGETS.values()}) == len(TARGETS)
    assert all(name == target.name for name, target in TARGETS.items())
