"""The catalogue of passes as a page of Markdown."""

from __future__ import annotations

from onnxq.report.results import Catalogue, PassPage

_HEAD = """\
# Passes

What every pass does, in the order a pipeline runs them, read off the passes themselves by
`onnxq passes --markdown`. A promise is `bitwise` (the same bits), `reassociates` (the same function, other
rounding) or `lossy` (another function, with a budget).
"""


def to_markdown(catalogue: Catalogue) -> str:
    """The page `docs/passes.md`: a table of contents, then a section for each pass."""
    lines = ["| pass | promise | needs |", "|---|---|---|"]
    lines += [
        f"| [{page.name}](#{page.name}) | {page.contract} | {_needs(page)} |" for page in catalogue.passes
    ]
    return "\n".join((_HEAD, *lines, "", "\n\n".join(map(_section, catalogue.passes)))) + "\n"


def _section(page: PassPage) -> str:
    law, *rest = page.text.split("\n\n")
    parts = [f"## {page.name}", _block(law), *map(_paragraph, rest)]
    parts.append(f"Promise: {page.contract}. Needs: {_needs(page)}.")
    if page.options:
        rows = (f"| `{row.name}` | {row.type} | `{row.default}` |" for row in page.options)
        parts.append("\n".join(("| option | type | default |", "|---|---|---|", *rows)))
    return "\n\n".join(parts)


def _paragraph(text: str) -> str:
    """A paragraph as it is; one with indented lines is a formula or a drawing."""
    return _block(text) if any(line.startswith("  ") for line in text.splitlines()) else text


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _needs(page: PassPage) -> str:
    wanted = [*page.statistics, *([f"opset {page.opset}"] if page.opset > 1 else [])]
    return ", ".join(wanted) or "nothing"
