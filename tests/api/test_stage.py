"""What a stage remembers of the last state of a model that was looked at."""

from __future__ import annotations

import pytest

from onnxq.api import stage as stage_module
from onnxq.api.stage import Stage
from onnxq.calibration import collect
from onnxq.recipe import DataSettings
from onnxq.statistics import Statistic
from tests.api import models


def test_the_same_state_is_run_over_the_data_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []

    def counted(*given: object, **options: object) -> object:
        runs.append(given[0])
        return collect(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stage_module, "collect", counted)
    stage = Stage.open(models.small(), models.small_data(), DataSettings(), threads=1)
    first = stage.gather(stage.model, {})
    assert stage.gather(stage.model, {}) == first
    assert len(runs) == 1
    wider = stage.watching(Statistic.ROWS)
    assert all(seen.rows is not None for seen in wider.gather(stage.model, {}).values())
    assert len(runs) == 2
    assert stage.gather(stage.model, {}).keys() == first.keys()
    assert len(runs) == 2
    stage.gather(stage.model.clone(), {})
    assert len(runs) == 3


def test_second_moments_are_gathered_again_since_they_are_not_kept() -> None:
    stage = Stage.open(models.small(), models.small_data(), DataSettings(), threads=1)
    (name, *_) = stage.gather(stage.model, {})
    for _ in range(2):
        found = stage.gather(stage.model, {Statistic.SECOND_MOMENTS: {name}})
        assert found[name].moments is not None
    assert stage.gather(stage.model, {})[name].moments is None
