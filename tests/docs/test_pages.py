"""What the pages tell people to type exists, and the Python on them runs."""

import re
import sys
import types

import click
import pytest
from click.testing import CliRunner

from onnxq import errors
from onnxq.cli.program import program
from tests.docs.blocks import PAGES, ROOT, blocks, commands


@pytest.mark.parametrize("page", [page for page in ("CONTRIBUTING.md",) if page in PAGES])
def test_python_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("page_under_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = blocks(page, "python")
    assert found
    for number, code in enumerate(found):
        exec(compile(code, f"{page}, block {number}", "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_compile(page: str) -> None:
    for number, code in enumerate(blocks(page, "python")):
        compile(code, f"{page}, block {number}", "exec")


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    for words in commands(page):
        if len(words) < 2 or not words[1].isalpha():
            continue
        verb = program.commands.get(words[1])
        assert verb is not None, f"{page}: {' '.join(words)}"
        known = {option for param in verb.params if isinstance(param, click.Option) for option in param.opts}
        told = {word.split("=")[0].strip("[]") for word in words[2:] if word.strip("[").startswith("-")}
        assert told <= {*known, "--help"}, f"{page}: {' '.join(words)}"


def test_some_commands_are_found() -> None:
    assert ["onnxq", "doctor", "--json"] in commands("CONTRIBUTING.md")


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.count("\n") > 195
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_readme_has_two_commands_to_run_and_the_checks_run_both() -> None:
    first, second = blocks("README.md", "bash")
    assert '".[cpu]"' in first
    assert first.rstrip().endswith("onnxq demo")
    assert '".[dev]"' in second
    assert "pytest" in second
    assert len(first.splitlines()) == len(second.splitlines()) == 1
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_tells_every_verb_and_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in program.commands:
        assert f"| `onnxq {name}" in text
    kinds = [kind for kind in vars(errors).values() if hasattr(kind, "exit_code")]
    codes = {kind.exit_code for kind in kinds} - {1}
    assert codes <= {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


def test_the_page_of_passes_is_what_the_passes_say() -> None:
    told = CliRunner().invoke(program, ["passes", "--markdown"])
    assert told.exit_code == 0
    page = (ROOT / "docs" / "passes.md").read_text(encoding="utf-8")
    assert page == told.stdout, "run: onnxq passes --markdown > docs/passes.md"


def test_pages_link_to_what_exists() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"
