"""The API with a cache of its own and a clock that does not need to wait: speeds are measured elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from onnxq.runtime import Contest, Latency

SPEEDUP = 2.5
"""What every model but the first is told to have."""

MEASURE = Contest.measure
"""What takes real time."""


def tell_latency(models: Mapping[str, Any], *_: Any, threads: int = 1, **__: Any) -> dict[str, Latency]:
    """As `measure_latency`, at once."""
    found = {}
    for index, name in enumerate(models):
        ratio = SPEEDUP if index else 1.0
        found[name] = Latency(
            threads, 5 / ratio, 6 / ratio, 0.01, 0.1, (6 / ratio,), 10, 1, 100, ratio, ratio
        )
    return found


@pytest.fixture(scope="package", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for module in ("evaluate", "demonstration"):
            patch.setattr(f"onnxq.api.{module}.measure_latency", tell_latency)
        patch.setattr(Contest, "measure", lambda self, *_: tell_latency(self.jobs, threads=self.threads))
        yield
