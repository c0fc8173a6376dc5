"""Progress bars, notes and warnings on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

from sotglp.console.streams import complain
from sotglp.errors import SotglpWarning

Advance = Callable[[int, str], None]
"""Called with the number of further units done and a short text such as the loss."""

Listener = Callable[[str, int, int], None]
"""Called with the title of a progress bar, the units done, and their total; it may raise an error to stop the work."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report the progress bars of this thread to a listener too, whether they are shown or not."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def progress_bar(title: str, total: int, unit: str, *, show: bool) -> Iterator[Advance]:
    """Show a progress bar on standard error, if that is a terminal and rich is installed."""
    with _terminal_bar(title, total, unit, show=show) as advance:
        listener = _LISTENER.get()
        if listener is None:
            yield advance
            return
        done = 0

        def advance_both(n: int, note: str) -> None:
            nonlocal done
            done += n
            advance(n, note)
            listener(title, done, total)

        listener(title, 0, total)
        yield advance_both


@contextmanager
def _terminal_bar(title: str, total: int, unit: str, *, show: bool) -> Iterator[Advance]:
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
