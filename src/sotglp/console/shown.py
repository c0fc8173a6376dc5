"""Values as messages show them: short, however large, deep or odd they are."""

from __future__ import annotations

import reprlib

_LONGEST = 80


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


def shown(value: object) -> str:
    """Show a value as ``repr`` does, cut where it is long.

    A few bytes of YAML can name a value whose ``repr`` fills all memory.

    Parameters
    ----------
    value : object
        Anything that was read from a file or given by a user.
    """
    text = _Short().repr(value)
    return text if len(text) <= 3 * _LONGEST else text[: 3 * _LONGEST] + "..."
