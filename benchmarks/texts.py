"""Descriptions of Debian packages: short ones and long ones of the same thing, in plain English.

They come from the translation index of apt, on any Debian. A container image may leave it out; then
`apt-get -o Acquire::Languages=en update` fetches it. Descriptions are ordered by the hash of the package's
name: one index always gives the same texts, and a newer index mostly the same.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.export import BenchmarkError

ENGLISH = "Acquire::Languages=en"
SHORTEST = 300
"""Fewest characters of a long description that is worth reading."""


@dataclass(frozen=True)
class Description:
    """What a package is, in one line and in full."""

    package: str
    short: str
    long: str


def read_descriptions() -> list[Description]:
    """Give all descriptions with a long and unique text, in an order that depends on their names only.

    Raises:
        BenchmarkError: There is no apt, or it has no English descriptions.
    """
    unique: dict[str, Description] = {}
    shorts: set[str] = set()
    for description in sorted(_parse(_index()), key=lambda each: each.package):
        if len(description.long) >= SHORTEST and description.short not in shorts:
            shorts.add(description.short)
            unique.setdefault(description.long, description)
    if not unique:
        raise BenchmarkError("apt holds no English descriptions; run apt-get -o Acquire::Languages=en update")
    return sorted(unique.values(), key=lambda each: hashlib.sha256(each.package.encode()).digest())


def _index() -> str:
    """Read the translation index of the distribution itself, without its updates."""
    listing = ["apt-get", "indextargets", "-o", ENGLISH, "--format", "$(FILENAME)"]
    try:
        files = subprocess.run(
            [*listing, "Created-By: Translations", "Language: en"], check=True, capture_output=True, text=True
        ).stdout.split()
        released = [file for file in files if not re.search(r"security|updates|backports|proposed", file)]
        return "\n".join(
            subprocess.run(
                ["/usr/lib/apt/apt-helper", "cat-file", file], check=True, capture_output=True, text=True
            ).stdout
            for file in released
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchmarkError("the texts come from apt's package index: run this on Debian") from error


def _parse(index: str) -> Iterator[Description]:
    """Read stanzas of `Package:` and `Description-en:`; a line of one dot parts two paragraphs."""
    pattern = re.compile(r"^Package: (\S+)\n(?:.*\n)*?Description-en: (.*)\n((?: .*\n)+)", re.MULTILINE)
    for stanza in index.split("\n\n"):
        found = pattern.search(stanza + "\n")
        if found:
            lines = [line.strip() for line in found[3].splitlines()]
            paragraphs = " ".join(lines).split(" . ")
            yield Description(found[1], found[2].strip(), "\n".join(text.strip() for text in paragraphs))
