from __future__ import annotations

import pytest

from onnxq.errors import UsageProblem
from onnxq.runtime.machine import Machine
from onnxq.targets import TARGETS, detect, find


def machine(architecture, *features):
    return Machine("Linux", architecture, "some", features, 4, 4, None, 8 << 30, None)


@pytest.mark.parametrize(
    ("architecture", "features", "name"),
    [
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), "x86-vnni"),
        ("x86_64", ("avx2", "avx_vnni"), "x86-vnni"),
        ("x86_64", ("avx2", "avx512f"), "x86-avx2"),
        ("x86_64", ("avx2",), "x86-avx2"),
        ("aarch64", ("asimddp",), "arm-dot"),
        ("aarch64", (), "qdq"),
        ("riscv64", (), "qdq"),
    ],
)
def test_detect(architecture, features, name):
    assert detect(machine(architecture, *features)) is TARGETS[name]


def test_seven_bits_where_sums_saturate():
    assert find("x86-vnni").largest_weight == 127
    assert find("x86-avx2").largest_weight == 63
    # vpmaddubsw adds two products of a uint8 and a weight in 16 bits
    assert 2 * 255 * find("x86-avx2").largest_weight < 1 << 15 <= 2 * 255 * find("x86-vnni").largest_weight


def test_signed_activations_are_forbidden_on_x86_alone_and_wanted_by_accelerators_alone():
    assert {name for name, each in TARGETS.items() if "signed-activation" in each.forbidden} == {
        "x86-vnni",
        "x86-avx2",
    }
    assert [name for name, each in TARGETS.items() if each.activation_type == "int8"] == ["qdq-symmetric"]
    assert all((each.activation_type == "int8") == each.activation_symmetric for each in TARGETS.values())


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
