"""The command reference, written from the command line itself at each build."""

from __future__ import annotations

import re
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from sotglp.cli.commands import COMMANDS, app, load_command

PAGE = "commands.md"
EXAMPLE = re.compile(r"\[bold\]Example\[/bold\]: (?P<command>.+?)\n\n", re.DOTALL)
"""A paragraph of a command's help, as its docstring has it."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page, which lies in no folder."""
    files.append(File.generated(config, PAGE, content=reference()))
    return files


def reference() -> str:
    """The page: every command with its arguments, options and example, in Markdown."""
    command: Any = typer.main.get_command(app)
    command.commands = {name: load_command(name) for name in COMMANDS}
    _keep_summaries(command)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sotglp", title="Commands")
    text = EXAMPLE.sub(lambda found: f"```sh\n{' '.join(found['command'].split())}\n```\n\n", text)
    lead = "Written from the program itself when this site is built; `sotglp COMMAND --help` says the same.\n"
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{lead}{rest}"


def _keep_summaries(group: Any) -> None:
    """Lists of commands have each one's first sentence whole, where typer would cut it off."""
    for command in group.commands.values():
        command.short_help = " ".join((command.help or "").split("\n\n")[0].split())
        if hasattr(command, "commands"):
            _keep_summaries(command)
