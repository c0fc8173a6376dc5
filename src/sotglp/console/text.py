"""Text from files and folders on its way to a terminal, which obeys some characters instead of showing them."""

from __future__ import annotations

import unicodedata

_TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of what follows, so that a name reads as another one."""

_NOT_SHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's control characters, halves of surrogate pairs (bytes of a file name that are no UTF-8), line breaks."""


def printable(text: str) -> str:
    r"""The text with control characters as Python writes them, such as ``\x1b``; letters of all scripts stay.

    Parameters
    ----------
    text : str
        One line: a line break in it is written as ``\n``, since it came with a name.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written_out(letter) for letter in text)


def _written_out(letter: str) -> str:
    if letter in _TURNS_TEXT or unicodedata.category(letter) in _NOT_SHOWN:
        return letter.encode("unicode_escape", "surrogatepass").decode()
    return letter


def readable_size(n_bytes: int) -> str:
    """A number of bytes for people, such as ``1.9 GiB``."""
    if n_bytes < 1024:
        return f"{n_bytes} B"
    size, unit = n_bytes / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        # From here on it would be printed as 1024.0.
        if size < 1023.95:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}"
