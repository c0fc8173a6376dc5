"""Text for a terminal: escaped control characters and readable sizes."""

from __future__ import annotations

import unicodedata

_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks of writing direction, which can disguise a name."""

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, surrogates (bytes of a file name that are not UTF-8), line breaks."""


def printable(text: str) -> str:
    r"""Escape control characters, such as ``\x1b``, and line breaks; letters of all scripts are kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) for letter in text)


def as_utf8(text: str) -> bytes:
    r"""Encode text; bytes of a file name that are not UTF-8 are escaped as ``\udce9``, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def _escaped(letter: str) -> str:
    if letter in _DIRECTION_MARKS or unicodedata.category(letter) in _ESCAPED_CATEGORIES:
        return letter.encode("unicode_escape", "surrogatepass").decode()
    return letter


def readable_size(n_bytes: int) -> str:
    """Format a number of bytes, such as ``1.9 GiB``."""
    if n_bytes < 1024:
        return f"{n_bytes} B"
    size, unit = n_bytes / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        # Otherwise it would be printed as 1024.0.
        if size < 1023.95:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}"
