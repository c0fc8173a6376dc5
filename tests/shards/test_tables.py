from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from sotglp.errors import SotglpError
from sotglp.images.columns import Columns
from sotglp.shards.shard import Item, Shard
from sotglp.shards.tables import arrow_items, image_columns, parquet_items
from support.shards import COLOURS, arrow_table

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SHARD = Shard("parquet", "a.parquet", "")


def parquet(table: object) -> io.BytesIO:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    buffer.seek(0)
    return buffer


def read(table: object, shard: Shard = SHARD) -> Iterator[Item]:
    file = parquet(table)
    return parquet_items(file, shard, len(file.getvalue()))


def test_images_have_their_paths_and_the_names_of_their_labels() -> None:
    names = ["red_brick", "green_leaf", "blue sea"]
    found = list(read(arrow_table(4, names)))
    assert [item.name for item in found] == ["0000.png", "0001.png", "0002.png", "0003.png"]
    assert [item.label for item in found] == [list(COLOURS)[i % 3] for i in range(4)]
    assert all(isinstance(item.source, bytes) for item in found)


def test_a_binary_column_holds_images_too_and_rows_without_a_path_are_counted() -> None:
    found = list(read(arrow_table(2, as_struct=False)))
    assert [item.name for item in found] == ["row 0", "row 1"]
    assert found[1].label == "green_leaf"


def test_a_row_without_bytes_is_reported() -> None:
    table = pa.table(
        {"image": [{"bytes": None, "path": "a.png"}]},
        pa.schema([("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))]),
    )
    (item,) = read(table)
    assert (item.source, item.name) == (None, "a.png")
    assert "no bytes" in item.problem


def test_a_label_of_minus_one_is_none() -> None:
    table = arrow_table(1, list(COLOURS)).set_column(1, "label", pa.array([-1]))
    assert next(read(table)).label is None


def test_a_label_beyond_the_names_is_refused() -> None:
    table = arrow_table(1, list(COLOURS)).set_column(1, "label", pa.array([7]))
    with pytest.raises(SotglpError, match="7"):
        next(read(table))


def test_a_table_of_paths_has_no_column_of_images() -> None:
    assert image_columns(pa.schema([("image", pa.string()), ("label", pa.int64())]), Columns()) is None
    with pytest.raises(SotglpError, match="no column of images"):
        next(read(pa.table({"image": ["a.png"]})))


def test_options_choose_the_columns() -> None:
    schema = pa.schema([("jpg", pa.binary()), ("other", pa.binary()), ("kind", pa.string()), ("label", pa.int64())])
    found = image_columns(schema, Columns(path="other", label="kind"))
    assert found is not None
    assert (found.image, found.label) == ("other", "kind")
    with pytest.raises(SotglpError, match="absent"):
        image_columns(schema, Columns(label="absent"))


def arrow(n: int) -> bytes:
    buffer = io.BytesIO()
    table = arrow_table(n, list(COLOURS))
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return buffer.getvalue()


def test_an_arrow_file_has_the_same_images() -> None:
    found = list(arrow_items(io.BytesIO(arrow(5)), SHARD))
    assert found == list(read(arrow_table(5, list(COLOURS))))


@pytest.mark.parametrize("missing", [8, 9, 500])
def test_a_truncated_arrow_file_is_an_error(missing: int) -> None:
    with pytest.raises((EOFError, OSError, pa.ArrowInvalid)):
        list(arrow_items(io.BytesIO(arrow(5)[:-missing]), SHARD))
