"""What people see of long work: progress bars with rate and time left, silent where nobody is watching; warnings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from sotglp.console.text import printable
from sotglp.errors import SotglpWarning

Advance = Callable[[int, str], None]
"""Say that ``n`` more units are done, with a short text such as the loss."""


@contextmanager
def progress_bar(title: str, total: int, unit: str, *, show: bool) -> Iterator[Advance]:
    """A bar on standard error that counts to ``total``.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        Units in all.
    unit : str
        What is counted, such as ``"images"``.
    show : bool
        False shows nothing; so does a standard error that is not a terminal, and an installation without rich.
    """
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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda n, note: bar.update(task, advance=n, note=note)


def note(text: str, *, show: bool) -> None:
    """One line on a terminal's standard error about work that is about to begin."""
    if show and sys.stderr.isatty():
        print(f"sotglp: {printable(text)}", file=sys.stderr)


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning as one line on standard error, in the place of ``warnings.showwarning``.

    Warnings of other libraries are for developers, who take ``--debug``; here they are left out.
    """
    if issubclass(category, SotglpWarning):
        print(f"sotglp: warning: {printable(str(message))}", file=sys.stderr)
