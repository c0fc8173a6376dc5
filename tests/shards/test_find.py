from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.columns import Columns
from sotglp.shards import find
from sotglp.shards.find import find_shards, is_sharded
from sotglp.shards.read import read_items
from sotglp.shards.shard import Item, Shard
from support.shards import COLOURS, arrow_table, png, save_like_datasets, tar_of, web_dataset

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def items(shard: Shard) -> list[Item]:
    return list(read_items(shard, Counter()))


def test_archives_of_a_folder_are_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar"):
        (tmp_path / name).write_bytes(web_dataset(2))
    found = find_shards([tmp_path])
    assert [shard.name for shard in found] == [str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]
    assert is_sharded(tmp_path)
    (tmp_path / "a.tar").write_bytes(web_dataset(3))
    assert found[0].version != find_shards([tmp_path])[0].version


def test_patterns_and_addresses_name_archives(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar", "c.tar.gz"):
        memory.pipe(f"/set/{name}", web_dataset(1))
        (tmp_path / name).write_bytes(web_dataset(1))
    (tmp_path / "notes.txt").write_bytes(b"")
    assert [shard.name for shard in find_shards(["memory://set/*.tar"])] == [
        "memory:///set/a.tar",
        "memory:///set/b.tar",
    ]
    assert len(find_shards(["memory:/set"])) == 3
    assert len(find_shards([tmp_path / "*.tar"])) == 2
    assert items(find_shards(["memory://set/a.tar"])[0])[0].label == "blue sea"
    with pytest.raises(SotglpError, match="matches no file"):
        find_shards(["memory://set/*.parquet"])
    with pytest.raises(SotglpError, match="does not exist"):
        find_shards(["memory://other"])


def test_folders_of_images_are_shards_of_files(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "FILES_A_SHARD", 2)
    for name in ("blue sea/a.png", "blue sea/b.png", "red_brick/c.png"):
        memory.pipe(f"/photos/{name}", png(1))
    found = find_shards(["memory://photos"])
    assert [shard.name for shard in found] == ["files 0 to 1", "files 2 to 2"]
    assert items(found[1]) == [
        Item("memory:///photos/red_brick/c.png", "memory:///photos/red_brick/c.png", "red_brick")
    ]


def test_a_local_folder_is_listed_like_that_of_predict(class_folders: Path) -> None:
    (shard,) = find_shards([class_folders])
    assert shard.kind == "files"
    assert len(shard.files) == 18
    assert not is_sharded(class_folders)


def test_other_files_beside_archives_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(web_dataset(1))
    (tmp_path / "b.png").write_bytes(png(0))
    with pytest.warns(SotglpWarning, match=r"1 ending in \.png"):
        assert len(find_shards([tmp_path])) == 1


def test_class_names_beside_archives_are_those_of_numbers(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("one\ntwo\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0.tar").write_bytes(tar_of({"a.png": png(0), "a.cls": b"1"}))
    (shard,) = find_shards([tmp_path / "test"])
    assert items(shard)[0].label == "two"


def test_data_sets_saved_to_disk_are_shards(tmp_path: Path) -> None:
    table = arrow_table(20, list(COLOURS))
    save_like_datasets(tmp_path / "one", table)
    save_like_datasets(tmp_path / "splits", table, ["train", "test"])
    assert is_sharded(tmp_path / "one")
    assert len(items(find_shards([tmp_path / "one"])[0])) == 20
    (shard,) = find_shards([tmp_path / "splits"], Columns(split="test"))
    assert shard.name == str(tmp_path / "splits" / "test" / "data-00000-of-00001.arrow")
    assert items(shard)[1].label == "green_leaf"
    with pytest.raises(SotglpError, match="train, test"):
        find_shards([tmp_path / "splits"])


def test_tables_of_a_split_are_chosen_by_their_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pq.write_table(arrow_table(3), tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(SotglpError, match="test, train"):
        find_shards([tmp_path])
    (shard,) = find_shards([tmp_path], Columns(split="test"))
    assert len(items(shard)) == 3
    assert len(find_shards([tmp_path], Columns(split="all"))) == 2
    with pytest.raises(SotglpError, match="no files of the split val"):
        find_shards([tmp_path], Columns(split="val"))


def test_a_table_of_paths_stays_a_manifest(class_folders: Path) -> None:
    import pyarrow as pa

    file = class_folders.parent / "list.parquet"
    pq.write_table(pa.table({"path": [str(next(class_folders.rglob("*.png")))]}), file)
    assert not is_sharded(file)
    assert find_shards([file])[0].kind == "files"


def test_damage_is_an_item_with_the_name_of_the_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(web_dataset(4)[:3000])
    pq.write_table(arrow_table(4), tmp_path / "b.parquet")
    content = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[: len(content) // 2])
    for name in ("a.tar", "b.parquet"):
        shard = Shard("tar" if name == "a.tar" else "parquet", str(tmp_path / name), "")
        last = items(shard)[-1]
        assert (last.name, last.source) == (str(tmp_path / name), None)
        assert "damaged or incomplete" in last.problem


def test_manifests_list_addresses_and_may_have_one(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    memory.pipe("/set/a.png", png(1))
    memory.pipe("/set/list.csv", b"path,label\na.png,blue sea\nmemory://other/b.png,red_brick\n")
    (tmp_path / "c.png").write_bytes(png(2))
    (tmp_path / "list.csv").write_text("path,label\nc.png,blue sea\nmemory://set/a.png,red_brick\n")
    (far,) = find_shards(["memory://set/list.csv"], with_labels=True)
    assert far.files == ("memory://set/a.png", "memory://other/b.png")
    assert far.labels == ("blue sea", "red_brick")
    (near,) = find_shards([tmp_path / "list.csv"])
    assert near.files == (str(tmp_path / "c.png"), "memory://set/a.png")
    memory.pipe("/set/list.csv", b"path\na.png\n\n")
    assert find_shards(["memory://set/list.csv"])[0].version != far.version
