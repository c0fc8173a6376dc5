from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import ToTensor

from sotglp.images.survey import UNKNOWN_DEPTH
from sotglp.shards.notes import ShardNotes
from sotglp.shards.pixels import PixelBatch, pixel_batches
from sotglp.shards.shard import Shard
from support.shards import png, tar_of, web_dataset


def batches(path: Path, n_threads: int = 1, size: int = 4, notes: ShardNotes | None = None) -> list[PixelBatch]:
    shard = Shard("tar", str(path), "")
    own = notes or ShardNotes()
    return list(pixel_batches(shard, ToTensor(), size, ranges={}, n_threads=n_threads, notes=own))


def test_batches_are_the_same_whatever_the_number_of_threads(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(web_dataset(30))
    one, four = batches(tmp_path / "a.tar"), batches(tmp_path / "a.tar", 4)
    assert [len(batch.names) for batch in one] == [4] * 7 + [2]
    for first, second in zip(one, four, strict=True):
        assert (first.names, first.labels) == (second.names, second.labels)
        assert torch.equal(first.pixels, second.pixels)


def test_bad_bytes_are_reported_and_keep_their_place_in_the_batch(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"a.png": png(0), "b.png": png(1)[:60], "c.png": b"", "d.png": png(2)}))
    first, second = batches(tmp_path / "a.tar", size=3)
    assert (first.names, [error.source for error in first.errors]) == (["a.png"], ["b.png", "c.png"])
    assert second.names == ["d.png"]


def test_lost_values_are_counted(tmp_path: Path) -> None:
    Image.new("I;16", (40, 40), 700).save(tmp_path / "deep.png")
    (tmp_path / "a.tar").write_bytes(tar_of({"a.png": png(0), "b.png": (tmp_path / "deep.png").read_bytes()}))
    notes = ShardNotes()
    batches(tmp_path / "a.tar", notes=notes)
    assert notes.losses == {UNKNOWN_DEPTH: 1}


def test_a_reader_that_stops_early_ends_the_threads(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(web_dataset(30))
    found = pixel_batches(
        Shard("tar", str(tmp_path / "a.tar"), ""), ToTensor(), 2, ranges={}, n_threads=2, notes=ShardNotes()
    )
    next(found)
    found.close()
    with pytest.raises(StopIteration):
        next(found)
