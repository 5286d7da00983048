"""Imports point one way through the layers of the package."""

from __future__ import annotations

import pytest

from tests.architecture.sources import imports_of, modules

# From the outside in. Packages on one line are siblings, which do not import each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("demo",),
    ("report",),
    ("recipe",),
    ("interop",),
    ("planning",),
    ("pipeline",),
    ("passes", "calibration", "verify", "learn"),
    ("targets",),
    ("runtime",),
    ("ir",),
    ("files",),
    ("contract",),
    ("edit",),
    ("statistics",),
    ("errors", "lookup", "names"),
)
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("module", modules())
def test_imports_point_inwards(module):
    own = layer_of(module)
    if not own:  # the package itself offers everything, lazily
        return
    assert own in DEPTH, f"{own} has no place among the layers"
    for imported in imports_of(module):
        target = layer_of(imported)
        if not imported.startswith("onnxq") or target in ("", own):
            continue
        assert DEPTH[own] < DEPTH[target], f"{module} imports {imported}, which lies further out"


@pytest.mark.parametrize("module", [name for name in modules() if ".passes." in name])
def test_passes_know_no_calibration_and_no_runtime(module):
    outside = {layer_of(imported) for imported in imports_of(module) if imported.startswith("onnxq.")}
    assert not outside & {"calibration", "verify", "runtime", "pipeline"}
