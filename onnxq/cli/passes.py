"""`onnxq passes`: which passes there are, and what one of them does."""

from __future__ import annotations

import click

from onnxq.cli.verb import Verb, give


@click.command(cls=Verb, short_help="List the passes, or explain one.")
@click.argument("name", required=False)
def passes(name: str | None) -> None:
    """List the passes, or explain the one called NAME: its law, promise, needs and options."""
    from onnxq.passes import registry
    from onnxq.report.catalogue import describe_pass
    from onnxq.report.results import Catalogue

    known = registry()
    if name is not None:
        give(describe_pass(known[name]))
    else:
        give(Catalogue(tuple(describe_pass(known[each]) for each in known)))
