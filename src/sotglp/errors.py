"""Errors that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SotglpError(ValueError):
    """Something a user gave can't be used; the message is one sentence that says what and what to do.

    The command line prints the message alone and exits with code 2.
    """


class UnknownNameError(SotglpError):
    """A name that stands for nothing; ``kind`` says what it was taken for, ``known`` which names there are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        super().__init__(f"there is no {kind} {name!r}{hint}: choose one of {', '.join(known)}")


class UnservedTowerError(SotglpError):
    """A tower of an open_clip model that the method can't work with; ``reason`` says why."""

    def __init__(self, tower: str, reason: str) -> None:
        super().__init__(
            f"the {tower} can't be served, since {reason}: choose one of those that `sotglp info --backbones` lists"
        )


class OldClassesOnlyError(SotglpError):
    """A model was asked for other classes than its own, and has learned nothing that they could use."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"a model of kind {kind} has learned nothing that other classes could use: train one on those classes"
        )


class SotglpWarning(UserWarning):
    """The work goes on, but not quite as the user asked."""
