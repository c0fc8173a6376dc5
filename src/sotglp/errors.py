"""Errors and warnings, each one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence

_MOST_NAMES = 5
_LONGEST = 80


class SotglpError(ValueError):
    """An input can't be used; the command line prints the message alone and exits with code 2."""


class UnknownNameError(SotglpError):
    """An unknown name of a ``kind``, such as "method"; ``known`` are the supported names.

    ``synonyms`` are names of other programs, with the supported name for each.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> None:
        known = list(known)
        meant = (synonyms or {}).get(name.lower().replace("-", "_"))
        near = [meant] if meant in known else difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        super().__init__(f"there is no {kind} {name!r}{hint}: choose one of {', '.join(known)}")


class UnsupportedTowerError(SotglpError):
    """A tower of an open_clip model that isn't supported, for ``reason``."""

    def __init__(self, tower: str, reason: str) -> None:
        super().__init__(
            f"the {tower} isn't supported, since {reason}: choose a backbone that `sotglp info --backbones` lists"
        )


class OldClassesOnlyError(SotglpError):
    """A model was asked for classes that it wasn't trained on, which its kind doesn't support."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"a model of kind {kind} only predicts the classes that it was trained on: train one on the new classes"
        )


class DivergedError(SotglpError):
    """A training gave values that are no finite numbers."""


class UnreadableImageError(SotglpError):
    """An image can't be read.

    Parameters
    ----------
    source : str
        Path or other name of the image.
    reason : str
        What is wrong with it and what to do, as the end of a sentence without full stop.
    """

    def __init__(self, source: str, reason: str) -> None:
        # Both are in args, since exceptions of worker processes are pickled as class and args.
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"can't read {self.source}: {self.reason}"


class ChangedImageError(UnreadableImageError):
    """An image file is another one than when its digest was computed."""


class SotglpWarning(UserWarning):
    """The result differs from what the user asked for."""


def first_line(error: Exception) -> str:
    """Return the first line of another library's message, or the error's type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def some_names(names: Sequence[str]) -> str:
    """Join names for a message and shorten after five: "a, b, c, d, e and 7 more"."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = _LONGEST

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to format integers of many thousand digits.
        if x.bit_length() > 1000:
            return f"a whole number of {x.bit_length()} bits"
        return super().repr_int(x, level)


def short_repr(value: object) -> str:
    """Shorten the ``repr`` of a value, since a few bytes of YAML can hold one whose ``repr`` exceeds all memory."""
    text = _Short().repr(value)
    return text if len(text) <= 3 * _LONGEST else text[: 3 * _LONGEST] + "..."
