"""How many random graphs: few and always the same ones by default, many and new ones with ``-m slow``."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "few",
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.register_profile(
    "many", settings.get_profile("few"), max_examples=3000, derandomize=False, print_blob=True
)
