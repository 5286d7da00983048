"""Passes that the user named and that were rolled back: nothing is written then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import VerificationFailed

if TYPE_CHECKING:
    from onnxq.report.rows import PassRow


def refuse_broken_promises(passes: Sequence[PassRow], output: Path) -> None:
    """End the command if a pass did not keep its promise, or failed.

    Raises:
        VerificationFailed: One did; the message says which, and what it did.
    """
    broken = [f"{row.name}: {row.note}" for row in passes if row.verdict == "different"]
    if broken:
        hint = f"Nothing was written at {output}. A pass that means to change the result is lossy."
        raise VerificationFailed("a broken promise: " + "; ".join(broken), hint=hint, slug="broken-promise")
