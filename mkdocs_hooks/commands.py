"""The command reference, generated from the command line at each build."""

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
"""The example in the docstring of a command."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated page."""
    files.append(File.generated(config, PAGE, content=reference()))
    return files


def reference() -> str:
    """Return every command with its arguments, options and example, in Markdown."""
    command: Any = typer.main.get_command(app)
    command.commands = {name: load_command(name) for name in COMMANDS}
    _keep_summaries(command)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sotglp", title="Commands")
    text = EXAMPLE.sub(lambda found: f"```sh\n{' '.join(found['command'].split())}\n```\n\n", text)
    lead = "Generated from the program; `sotglp COMMAND --help` prints the same.\n"
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{lead}{rest}"


def _keep_summaries(group: Any) -> None:
    """Keep the first sentence of each command, which typer would truncate."""
    for command in group.commands.values():
        command.short_help = " ".join((command.help or "").split("\n\n")[0].split())
        if hasattr(command, "commands"):
            _keep_summaries(command)
