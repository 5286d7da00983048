"""Environments are made once, and never believed to be there when they are half made."""

from __future__ import annotations

import dataclasses
import re

import pytest

from benchmarks import environments
from benchmarks.environments import ENVIRONMENTS, python_of
from benchmarks.export import BenchmarkError


@pytest.fixture
def commands(monkeypatch, tmp_path):
    monkeypatch.setattr(environments, "cache_folder", lambda: tmp_path)
    run = []

    def note(command, environment):
        run.append(command)
        environment.folder.mkdir(parents=True, exist_ok=True)
        return "numpy==2.4.6\n"

    monkeypatch.setattr(environments, "_run", note)
    return run


def test_every_package_is_pinned():
    packages = [each for environment in ENVIRONMENTS.values() for each in environment.packages]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", each) for each in packages)


def test_other_packages_are_another_environment():
    one = ENVIRONMENTS["nncf"]
    assert dataclasses.replace(one, packages=("nncf==1",)).folder != one.folder


def test_environment_is_made_once_with_all_its_packages(commands):
    python = python_of("nncf")
    assert python == python_of("nncf")
    venv, install, freeze = commands
    assert venv[1:3] == ["-m", "venv"]
    assert install[0] == freeze[0] == str(python)
    assert install[-len(ENVIRONMENTS["nncf"].packages) :] == list(ENVIRONMENTS["nncf"].packages)
    assert (python.parents[1] / "installed.txt").read_text() == "numpy==2.4.6\n"


def test_half_made_environment_is_made_anew(commands):
    left = ENVIRONMENTS["nncf"].folder / "lib"
    left.mkdir(parents=True)
    python_of("nncf")
    assert len(commands) == 3
    assert not left.exists()


def test_unknown_environment_is_refused():
    with pytest.raises(BenchmarkError, match="there are onnxruntime, nncf"):
        python_of("quark")


def test_failure_to_install_is_told_by_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "cache_folder", lambda: tmp_path)
    with pytest.raises(BenchmarkError, match="'nncf' could not be made: ValueError: no such package"):
        environments._run(["python3", "-c", "raise ValueError('no such package')"], ENVIRONMENTS["nncf"])
