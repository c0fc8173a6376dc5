"""Stand-ins for typer's ``Argument`` and ``Option`` in annotations, for installations without typer."""

from __future__ import annotations


class Argument:
    """Declaration of an argument."""

    def __init__(self, *names: str, help: str = "", metavar: str | None = None, min: int | None = None) -> None:
        self.names, self.help, self.metavar, self.min = names, help, metavar, min


class Option(Argument):
    """Declaration of an option."""
