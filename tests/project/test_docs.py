from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

from support.doc_blocks import EVALUATORS, ROOT, check_command, commands_of, exit_code, run_shell

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_has_a_language_that_is_tested(page: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.M)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= set(EVALUATORS)
    assert set(fences[1::2]) <= {""}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_a_failing_command_fails_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```sh\ntrue\nsotglp fit no_such_folder --out m.safetensors\n```\n")
    document = Sybil([CodeBlockParser("sh", run_shell)]).parse(page)
    with pytest.raises(AssertionError, match="exit code 2"):
        next(iter(document.examples())).evaluate()
    assert exit_code("false") == 1


def test_commands_that_are_not_run_are_checked() -> None:
    check_command("sotglp benchmark few-shot --root data")
    with pytest.raises(Exception, match="--rout"):
        check_command("sotglp benchmark few-shot --rout data")
    with pytest.raises(Exception, match="make"):
        check_command("make no-such-target")
    with pytest.raises(AssertionError, match="no extra"):
        check_command("pip install '.[nothing]'")


def test_commands_are_lines_without_comments() -> None:
    assert commands_of("a \\\n  b  # c\n# d\n\ne f\n") == ["a    b", "e f"]
