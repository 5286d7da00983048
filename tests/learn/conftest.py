"""Everything here needs torch, an extra: without it the folder is passed over."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]
