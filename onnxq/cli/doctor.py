"""`onnxq doctor`: what this machine can do, and what is in the way."""

from __future__ import annotations

import click

from onnxq.cli.verb import Verb, give
from onnxq.errors import BackendError


@click.command(cls=Verb, short_help="Look at this machine and this installation.")
def doctor() -> None:
    """Look at the processor, the runtime and the versions, and name known hazards with the way out."""
    from onnxq import api

    diagnosis = api.doctor()
    give(diagnosis)
    failed = [check.name for check in diagnosis.checks if check.status == "fail"]
    if failed:
        raise BackendError(f"not ready: {', '.join(failed)}", slug="not-ready")
