"""Code blocks of the project's own pages."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of these languages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def commands(page: str) -> list[list[str]]:
    """Every `onnxq ...` that a page tells its reader to type, in words."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = [
        line.strip() for body in blocks(page, "sh", "bash", "console", "") for line in body.splitlines()
    ]
    inline = re.findall(r"`([^`\n]+)`", text)
    lines = [line.removeprefix("$ ").split("  #")[0].split(" && ") for line in (*fenced, *inline)]
    words = [part.split() for line in lines for part in line]
    return [each for each in words if each and each[0] == "onnxq"]
