"""Progress bars, notes and warnings on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from sotglp.console.streams import complain
from sotglp.errors import SotglpWarning

Advance = Callable[[int, str], None]
"""Called with the number of further units done and a short text such as the loss."""


@contextmanager
def progress_bar(title: str, total: int, unit: str, *, show: bool) -> Iterator[Advance]:
    """Show a progress bar on standard error, if that is a terminal and rich is installed."""
    if find_spec("rich") is None:
        yield lambda n, note: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else f"- {unit}/s", style="progress.data.speed")

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        # Before 14.3, rich prints an empty line at the end of a disabled bar.
        yield lambda n, note: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda n, note: bar.update(task, advance=n, note=note)


def note(text: str, *, show: bool = True) -> None:
    """Print one line about work that begins, if standard error is a terminal."""
    if show and sys.stderr.isatty():
        complain(text)


def note_loading(module: str = "torch", name: str = "PyTorch") -> None:
    """Note that a library that takes seconds to import is loaded now, unless it already is."""
    note(f"loading {name}", show=module not in sys.modules and _speaks())


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning of sotglp as one line; replaces ``warnings.showwarning``.

    Warnings of other libraries are for developers, who use ``--debug``.
    """
    if issubclass(category, SotglpWarning) and _speaks():
        complain(f"warning: {message}")


def _speaks() -> bool:
    """Whether this is the first of the processes that share a run, which speaks for all."""
    return os.environ.get("RANK", "0") == "0"
