"""Names of classes that requests send."""

from __future__ import annotations

from collections.abc import Iterable

from sotglp.console.output import UNKNOWN
from sotglp.console.text import printable
from sotglp.images.labels import prompt_name
from sotglp.web.limits import RefusalError

MAX_CLASS_NAME = 100


def checked_class_name(name: str) -> str:
    """Return a name with single spaces.

    Raises
    ------
    RefusalError
        422 if it is empty, too long, not printable, or the label of rejected images.
    """
    name = " ".join(name.split())
    if not name or len(name) > MAX_CLASS_NAME or name != printable(name):
        raise RefusalError(422, f"the field name must have 1 to {MAX_CLASS_NAME} printable characters on one line")
    if prompt_name(name).casefold() == UNKNOWN:
        raise RefusalError(422, f"the name {name!r} is the label of images that are rejected: choose another one")
    return name


def new_class_name(name: str, others: Iterable[str]) -> str:
    """Return a name like :func:`checked_class_name`; RefusalError 422 if its prompt is that of another class."""
    name = checked_class_name(name)
    for other in others:
        if prompt_name(name).casefold() == prompt_name(other).casefold():
            raise RefusalError(422, f"there is already a class {other!r}: choose another name")
    return name
