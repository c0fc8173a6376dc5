"""Files of predictions for other tools: JSON Lines and Parquet, with the same columns and types in every row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sotglp.console.text import as_utf8
from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file

COLUMNS = ("path", "label", "most_probable", "probability", "ood_score", "is_unknown", "probabilities")
"""Columns of every file; a column ``set`` may follow."""

METADATA = {b"sotglp": b"predictions"}
"""What a Parquet file of predictions is recognised by."""


def json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return one JSON object a line; NaN and infinity are null."""
    texts = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in _flat(rows))
    return as_utf8("".join(f"{text}\n" for text in texts))


def is_json_lines(text: str) -> bool:
    """Whether a file's text begins as :func:`json_lines` writes it."""
    try:
        first = json.loads(text.split("\n", 1)[0])
    except ValueError:
        return False
    return isinstance(first, dict) and tuple(first)[: len(COLUMNS)] == COLUMNS


def check_parquet(path: Path) -> None:
    """Raise a SotglpError if no Parquet file can be written, for want of pyarrow."""
    if find_spec("pyarrow") is None:
        raise SotglpError(
            f'writing {path} requires pyarrow; install it with pip install "sotglp[parquet]", or write --jsonl'
        )


def is_parquet(path: Path) -> bool:
    """Whether :func:`write_parquet` wrote a file."""
    try:
        with path.open("rb") as file:
            begins_as_one = file.read(4) == b"PAR1"
    except OSError:
        return False
    if not begins_as_one or find_spec("pyarrow") is None:
        return False
    import pyarrow
    import pyarrow.parquet

    try:
        return METADATA.items() <= (pyarrow.parquet.read_schema(path).metadata or {}).items()
    except (pyarrow.ArrowException, OSError, ValueError):
        return False


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], *, force: bool) -> None:
    """Write predictions as a Parquet file; the same predictions give the same bytes."""
    check_parquet(path)
    import pyarrow as pa
    import pyarrow.parquet

    text, number = pa.string(), pa.float64()
    kinds = {
        "path": text,
        "label": text,
        "most_probable": text,
        "probability": number,
        "ood_score": number,
        "is_unknown": pa.bool_(),
        "probabilities": pa.struct([(name, number) for name in (rows[0]["probabilities"] if rows else ())]),
        "set": pa.list_(text),
    }
    names = [*COLUMNS, *(["set"] if rows and "set" in rows[0] else [])]
    schema = pa.schema([(name, kinds[name]) for name in names], metadata=METADATA)
    table = pa.Table.from_pylist(list(_flat(rows)), schema=schema)
    write_file(path, lambda beside: pyarrow.parquet.write_table(table, beside), force=force)


def _flat(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield rows whose labels are text, since "unknown" and numbers can't share a column.

    Bytes of a file name that aren't UTF-8 are escaped: pandas and datasets read no file that holds lone surrogates.
    """
    for row in rows:
        flat = {name: row[name] for name in COLUMNS} | {"path": as_utf8(row["path"]).decode()}
        flat |= {name: str(row[name]) for name in ("label", "most_probable")}
        flat |= {name: row[name] if math.isfinite(row[name]) else None for name in ("probability", "ood_score")}
        yield flat | ({"set": [*map(str, row["set"])]} if "set" in row else {})
