"""Shards, the parts of a large set of images that are read one after another, and their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sotglp.errors import SotglpError
from sotglp.images.columns import Columns
from sotglp.images.labels import label_text
from sotglp.images.manifest import ANY_COLUMNS

MAX_IMAGE_BYTES = 2**28
"""Larger images in archives and on the network are rejected, since they are read into memory."""

TOO_LARGE = f"it has more than {MAX_IMAGE_BYTES} bytes; make it smaller"


class Item(NamedTuple):
    """An image that is not decoded yet.

    Attributes
    ----------
    name : str
        Path or key, for people.
    source : bytes or str or None
        Content of the image file, its path or address, or None if there is no content, for the reason ``problem``.
    label : str or None
        Class name.
    problem : str
        End of a sentence with what is wrong and what to do; "" if nothing is.
    """

    name: str
    source: bytes | str | None
    label: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Shard:
    """A part of the images that a user names. It can be pickled, and read in any process.

    Attributes
    ----------
    kind : {"files", "tar", "parquet", "arrow"}
        How it is read.
    name : str
        Path or address of an archive or a table, or the numbers of the files.
    version : str
        Changes with the content: size and time of change or checksum.
    files : tuple of str
        Paths or addresses of the images of kind "files".
    labels : tuple of str or None
        Class names of these files.
    class_names : tuple of str
        Names of labels that are whole numbers; empty if there are none.
    columns : Columns
        Columns of a table, or entries of JSON in an archive, that a user names.
    """

    kind: Literal["files", "tar", "parquet", "arrow"]
    name: str
    version: str
    files: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    class_names: tuple[str, ...] = ()
    columns: Columns = ANY_COLUMNS

    def __str__(self) -> str:
        return self.name

    def name_of(self, image: str) -> str:
        """Return the name of an image with that of the shard, unless it is a path or the shard's own."""
        return image if self.kind == "files" or image == self.name else f"{image} in {self.name}"


def named_label(value: Any, names: Sequence[str], where: str) -> str | None:
    """Return the class name of a label as shards store them; None if there is none, such as -1 of Hugging Face.

    A whole number is an index into ``names``, if there are any. Raise a SotglpError about the image ``where``.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        value = value.strip()
        if names and value not in names and value.removeprefix("-").isdecimal():
            value = int(value)
    if value is None or value == "" or (value == -1 and not isinstance(value, str)):
        return None
    if names and isinstance(value, int):
        if not 0 <= value < len(names):
            raise SotglpError(f"the label of {where} is {value}, but its set names {len(names)} classes; correct it")
        return label_text(names[value])
    return label_text(value, f"the label of {where}")


def entry_label(record: Any, columns: Columns) -> Any:
    """Return the label in a JSON value: that of an entry such as ``label`` or ``class``, or the value itself."""
    if isinstance(record, Mapping):
        names = [str(name) for name in record]
        found = columns.find(names, "label")
        return None if found is None else _plain(record[names[found]])
    return _plain(record)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else None
