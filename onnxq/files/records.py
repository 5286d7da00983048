"""Small records as JSON: read with suspicion, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def read_record(path: Path) -> Any:
    """What a file of JSON holds; None where there is none, or a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_record(path: Path, value: object) -> None:
    """Write a value as JSON, in one step.

    Raises:
        OSError: No space, no permission, no folder.
    """
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
    ) as draft:
        json.dump(value, draft)
    os.replace(draft.name, path)
