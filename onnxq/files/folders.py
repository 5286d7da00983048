"""The folder of what can be made again: results that take long and depend on nothing but their inputs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def platform_cache() -> Path:
    """The folder where this platform keeps what can be made again."""
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "onnxq"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "onnxq" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "onnxq"
    return Path.home() / ".cache" / "onnxq"
