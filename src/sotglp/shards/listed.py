"""Image files that a manifest lists, where the manifest or the files have addresses."""

from __future__ import annotations

from pathlib import Path

from sotglp.errors import SotglpError
from sotglp.images.columns import Columns
from sotglp.images.formats import ending
from sotglp.images.manifest import read_rows
from sotglp.images.table import csv_rows_of, parquet_rows
from sotglp.shards.addresses import full_address, is_address, opened

LISTS = frozenset({".csv", ".tsv"})
"""Suffixes of manifests that are read from an address."""

_MAX_BYTES = 2**30


def read_list(name: str, columns: Columns, with_labels: bool) -> tuple[list[str], tuple[str, ...] | None]:
    """Return the paths and addresses of the images that a manifest lists, and their labels; None without labels.

    Relative paths start at the folder of the manifest, also on the network, where no file is looked for yet. See
    :func:`sotglp.images.manifest.read_manifest`.
    """
    if ending(name) in LISTS:
        with opened(name) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise SotglpError(f"{name} has more than {_MAX_BYTES} bytes: split it, and give all parts")
        rows = csv_rows_of(name, content, columns.wanted)
    else:
        rows = parquet_rows(Path(name), columns.wanted)
    folder = name.rpartition("/")[0]

    def address_of(cell: str) -> str | None:
        if is_address(cell):
            return full_address(cell)
        return f"{folder}/{cell}" if is_address(name) else None

    header = [str(title) for title in next(rows)[1]]
    images, labels = read_rows(
        name, Path(name).parent, header, rows, columns, with_labels=with_labels, address_of=address_of
    )
    return [str(image) for image in images], labels
