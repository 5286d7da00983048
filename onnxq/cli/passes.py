"""`onnxq passes`: which passes there are, and what one of them does."""

from __future__ import annotations

import click

from onnxq.cli.verb import Verb, give


@click.command(cls=Verb, short_help="List the passes, or explain one.")
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Print the whole of all of them as Markdown.")
def passes(name: str | None, markdown: bool) -> None:
    """List the passes, or explain the one called NAME: its law, promise, needs and options."""
    from onnxq.passes import registry
    from onnxq.report.catalogue import describe_pass
    from onnxq.report.results import Catalogue

    known = registry()
    if name is not None:
        give(describe_pass(known[name]))
        return
    catalogue = Catalogue(tuple(describe_pass(known[each]) for each in known))
    if markdown:
        from onnxq.report.markdown import to_markdown

        click.echo(to_markdown(catalogue), nl=False)
    else:
        give(catalogue)
