"""Images in the rows of Parquet and Arrow tables, as Hugging Face writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from sotglp.errors import SotglpError
from sotglp.images.columns import Columns
from sotglp.images.table import check_counts
from sotglp.shards.shard import MAX_IMAGE_BYTES, TOO_LARGE, Item, Shard, named_label

BYTES_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "bytes", "content")
"""Usual names of columns that hold image files."""

_ROWS = 64
"""Rows of a Parquet table that are in memory at once."""

_FIELD = "bytes"

_END = b"\xff" * 4 + bytes(4)
"""End of an Arrow stream."""


class ImageColumns(NamedTuple):
    """Columns of a table with images: image files, labels, paths, and the names of labels that are numbers."""

    image: str
    label: str | None
    path: str | None
    class_names: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Columns to read."""
        return [name for name in (self.image, self.label, self.path) if name is not None]


def image_columns(schema: Any, columns: Columns) -> ImageColumns | None:
    """Return the columns of an Arrow schema with image files; None if it has none, as a table of paths.

    An image column is a struct with a field ``bytes``, or binary with a usual name or that of ``columns.path``.
    """
    image = next((name for name in schema.names if _holds_images(schema, name, columns.path)), None)
    if image is None:
        return None
    others = [name for name in schema.names if name != image]
    labels = Columns(label=columns.label)
    at, path_at = labels.find(others, "label"), Columns().find(others, "path")
    if columns.label is not None and at is None:
        raise SotglpError(f"there is no column {columns.label}, only: {', '.join(schema.names[:20])}")
    label = None if at is None else others[at]
    path = None if path_at is None or "string" not in str(schema.field(others[path_at]).type) else others[path_at]
    return ImageColumns(image, label, path, _class_names(schema, label))


def parquet_items(file: IO[bytes], shard: Shard, size: int) -> Iterator[Item]:
    """Yield the images of a Parquet file of ``size`` bytes. Raise errors of pyarrow where it is damaged."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False) as table:
        check_counts(table.metadata, size)
        columns = _required(table.schema_arrow, shard)
        row = 0
        for batch in table.iter_batches(_ROWS, columns=columns.all, use_threads=False):
            yield from _items(batch, columns, row, shard)
            row += batch.num_rows


def arrow_items(file: IO[bytes], shard: Shard) -> Iterator[Item]:
    """Yield the images of an Arrow file as `datasets` saves it to disk. Raise errors of pyarrow where it is damaged."""
    import pyarrow.ipc

    with pyarrow.ipc.open_stream(file) as reader:
        columns = _required(reader.schema, shard)
        row = 0
        for batch in reader:
            yield from _items(batch, columns, row, shard)
            row += batch.num_rows
        # A stream that was cut between two batches ends like a whole one.
        if not _has_end(file):
            raise EOFError("it has no end")


def _has_end(file: IO[bytes]) -> bool:
    """Whether a file ends with the bytes that end an Arrow stream."""
    file.seek(-len(_END), os.SEEK_END)
    return file.read(len(_END)) == _END


def _holds_images(schema: Any, name: str, chosen: str | None) -> bool:
    import pyarrow as pa

    kind = schema.field(name).type
    is_file = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if pa.types.is_struct(kind):
        is_file = kind.get_field_index(_FIELD) >= 0
    elif chosen is None:
        is_file = is_file and name.lower() in BYTES_COLUMNS
    return bool(is_file) and chosen in (None, name)


def _class_names(schema: Any, label: str | None) -> tuple[str, ...]:
    """Return the names of a column of numbers in the metadata that `datasets` writes; empty if there are none."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _required(schema: Any, shard: Shard) -> ImageColumns:
    columns = image_columns(schema, shard.columns)
    if columns is None:
        raise SotglpError(
            f"{shard.name} has no column of images, only: {', '.join(schema.names[:20])}; a column image holds the "
            "bytes of image files, and --path-column names another one"
        )
    return columns


def _items(batch: Any, columns: ImageColumns, first: int, shard: Shard) -> Iterator[Item]:
    names = columns.class_names or shard.class_names
    for row in range(batch.num_rows):
        value = batch.column(columns.image)[row].as_py()
        content = value.get(_FIELD) if isinstance(value, dict) else value
        path = value.get("path") if isinstance(value, dict) else None
        if path is None and columns.path is not None:
            path = batch.column(columns.path)[row].as_py()
        name = f"row {first + row}" if path is None else str(path)
        label = None if columns.label is None else batch.column(columns.label)[row].as_py()
        problem = ""
        if not isinstance(content, bytes):
            content, problem = None, "the table has no bytes for it; write the image into the table or leave it out"
        elif len(content) > MAX_IMAGE_BYTES:
            content, problem = None, TOO_LARGE
        yield Item(name, content, named_label(label, names, f"{name} in {shard.name}"), problem)
