from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import doc_blocks
from support.doc_blocks import (
    COMMON_NAMES,
    FAILING,
    FIRST,
    INSTALLING,
    JSON,
    LANGUAGES,
    NAMES,
    PYTHON,
    SHELL,
    TEXT,
    UNRUN,
    YAML,
    Block,
    blocks_of,
    check_unrun,
    commands_of,
    pages,
    run_command,
    run_python,
    run_sotglp,
)
from support.doc_server import Server

SLOW = {"README.md", "docs/benchmark.md", "docs/onnx.md", "docs/reproduce.md"}
"""Pages whose blocks take more than ten seconds on one core."""

PAGES = [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in pages() if blocks_of(page)]


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with photos to be in, and few steps for a fit that says nothing of epochs."""
    doc_blocks.make_sandbox(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOTGLP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(doc_blocks.make_shim(tmp_path)), prepend=":")
    monkeypatch.setattr("sotglp.settings.LEAST_STEPS", 2)
    monkeypatch.setattr("sotglp.settings.FEWEST_EPOCHS", 1)
    terminated = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        yield tmp_path
    signal.signal(signal.SIGTERM, terminated)


@pytest.fixture
def server(sandbox: Path) -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_run_in_their_order(
    page: str, sandbox: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = blocks_of(page)
    names: dict[str, Any] = {}
    if page == "docs/start.md":
        doc_blocks.paint_demo(sandbox)
    for command in FIRST.get(page, ()):
        run_command(command)
    if any(block.language == PYTHON for block in blocks):
        exec(COMMON_NAMES + NAMES.get(page, ""), names)
    for position, block in enumerate(blocks):
        if block.saved_as:
            Path(block.saved_as).write_text(block.code)
        if block.language == SHELL:
            _run_shell(page, block, blocks[position + 1 :], server, capsys)
        elif block.language == PYTHON:
            run_python(page, block, names)
        elif block.language == YAML:
            doc_blocks.check_yaml(block)
        elif block.language == JSON:
            json.loads(block.code)


def _run_shell(page: str, block: Block, later: list[Block], server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    unrun = {one.command for one in UNRUN if one.page == page}
    for command in block.commands:
        bare = _without_comment(command)
        if bare in unrun or bare.startswith(INSTALLING):
            check_unrun(bare)
        elif bare == FAILING.get(page):
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                run_sotglp(bare.split()[1:], as_written=True)
            assert end.value.code == 2
            assert capsys.readouterr().err == later[0].code
        elif bare.startswith("sotglp serve "):
            server.start(bare)
        else:
            run_command(server.asked(command))


def _without_comment(command: str) -> str:
    return command.split(" #")[0].strip()


@pytest.mark.parametrize("page", pages())
def test_every_block_says_its_language(page: str) -> None:
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}: mark it as one of {', '.join(LANGUAGES)}"


@pytest.mark.parametrize("page", pages())
def test_no_command_hides_in_a_text_block(page: str) -> None:
    for block in blocks_of(page):
        if block.language == TEXT:
            hidden = [line for line in block.code.splitlines() if line.split()[:1] in (["sotglp"], ["make"], ["pip"])]
            assert not hidden, f"{page}:{block.line}: {hidden} is a command: mark the block as sh"


@pytest.mark.parametrize("page", pages())
def test_no_fence_is_left_open(page: str) -> None:
    fences = sum(line.lstrip().startswith("```") for line in (doc_blocks.ROOT / page).read_text().splitlines())
    assert fences == 2 * len(blocks_of(page))


def test_what_is_listed_is_still_there() -> None:
    listed = {(one.page, one.command) for one in UNRUN} | set(FAILING.items())
    there = {(page, _without_comment(command)) for page in pages() for command in commands_of(page)}
    assert listed <= there, "take these out of tests/support/doc_blocks.py"
    assert {*FIRST, *NAMES, *SLOW} <= {page for page in pages() if blocks_of(page)}
    assert all(one.why for one in UNRUN)


def test_a_command_that_fails_is_told(sandbox: Path) -> None:
    with pytest.raises(AssertionError, match="exit code 2"):
        run_command("sotglp fit no_such_folder --out m.safetensors")
    with pytest.raises(AssertionError, match="exit code 2"):
        run_command("sotglp fit no_such_folder --out m.safetensors | cat")
    with pytest.raises(AssertionError, match="exit code 1"):
        run_command("false")


def test_an_option_that_is_none_is_told() -> None:
    check_unrun("sotglp benchmark few-shot --root data")
    with pytest.raises(Exception, match="--rout"):
        check_unrun("sotglp benchmark few-shot --rout data")
    with pytest.raises(Exception, match="make"):
        check_unrun("make no-such-target")
    with pytest.raises(AssertionError, match="no extra"):
        check_unrun("pip install '.[nothing]'")


def test_blocks_are_found_with_their_lines_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doc_blocks, "ROOT", tmp_path)
    (tmp_path / "p.md").write_text(
        "# P\n\nSave as `a.yaml`.\n\n```yaml\na: 1\n```\n\n- x\n\n  ```sh\n  a \\\n    b\n  # c\n  ```\n"
    )
    first, second = blocks_of("p.md")
    assert first == Block(6, "yaml", "a: 1\n", "a.yaml")
    assert second == Block(12, "sh", "a \\\n  b\n# c\n", None)
    assert second.commands == ["a    b"]
