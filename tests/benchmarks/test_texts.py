"""Reading apt's translation index, and choosing texts from it."""

from __future__ import annotations

import pytest

from benchmarks import texts
from benchmarks.export import BenchmarkError

LONG = "It does a great many things, and does each of them in more than one way. " * 6


def stanza(package: str, short: str, long: str) -> str:
    return f"Package: {package}\nDescription-md5: 0\nDescription-en: {short}\n {long}\n .\n The end.\n"


def test_stanza_gives_both_texts_with_paragraphs_parted(monkeypatch):
    monkeypatch.setattr(texts, "_index", lambda: stanza("tool", "does things", LONG.strip()))
    (found,) = texts.read_descriptions()
    assert (found.package, found.short) == ("tool", "does things")
    assert found.long == f"{LONG.strip()}\nThe end."


def test_same_texts_are_taken_once_and_short_ones_never(monkeypatch):
    index = [stanza("b", "second", LONG), stanza("a", "first", LONG), stanza("c", "third", "Short.")]
    monkeypatch.setattr(texts, "_index", lambda: "\n".join(index))
    assert [each.package for each in texts.read_descriptions()] == ["a"]


def test_order_does_not_depend_on_the_order_of_the_index(monkeypatch):
    index = [stanza(name, f"is {name}", f"{name}: {LONG}") for name in "abcdefgh"]
    monkeypatch.setattr(texts, "_index", lambda: "\n".join(index))
    forward = texts.read_descriptions()
    monkeypatch.setattr(texts, "_index", lambda: "\n".join(reversed(index)))
    assert texts.read_descriptions() == forward
    assert [each.package for each in forward] != sorted(each.package for each in forward)


def test_index_without_english_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(texts, "_index", lambda: "")
    with pytest.raises(BenchmarkError, match="Acquire::Languages=en update"):
        texts.read_descriptions()


def test_machine_without_apt_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchmarkError, match="Debian"):
        texts.read_descriptions()
