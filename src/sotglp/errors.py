"""Errors that a person can act on."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence

_MOST_NAMES = 5
_LONGEST = 80


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


class UnsupportedTowerError(SotglpError):
    """A tower of an open_clip model that isn't supported, for ``reason``."""

    def __init__(self, tower: str, reason: str) -> None:
        super().__init__(
            f"the {tower} isn't supported, since {reason}: choose a backbone that `sotglp info --backbones` lists"
        )


class OldClassesOnlyError(SotglpError):
    """A model was asked for other classes than its own, and has learned nothing that they could use."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"a model of kind {kind} has learned nothing that other classes could use: train one on those classes"
        )


class UnreadableImageError(SotglpError):
    """An image can't be read.

    Parameters
    ----------
    source : str
        Name of the image: its path, or what else it is known by.
    reason : str
        What is wrong with it and what to do; the end of a sentence without its full stop.
    """

    def __init__(self, source: str, reason: str) -> None:
        # Both go into args because an exception is pickled (from a worker process) as its class and its args.
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"can't read {self.source}: {self.reason}"


class SotglpWarning(UserWarning):
    """The work goes on, but not quite as the user asked."""


def some_names(names: Sequence[str]) -> str:
    """Names in a row for a message, cut after five of them: "a, b, c, d, e and 7 more"."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = _LONGEST

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out whole numbers beyond some thousand digits.
        if x.bit_length() > 1000:
            return f"a whole number of {x.bit_length()} bits"
        return super().repr_int(x, level)


def short_repr(value: object) -> str:
    """Show a value as ``repr`` does, cut where it is long.

    A few bytes of YAML can name a value whose ``repr`` fills all memory.

    Parameters
    ----------
    value : object
        Anything that was read from a file or given by a user.
    """
    text = _Short().repr(value)
    return text if len(text) <= 3 * _LONGEST else text[: 3 * _LONGEST] + "..."
