from __future__ import annotations

import gzip
import io
import tarfile
from collections import Counter

import pytest

from sotglp.shards.shard import Shard
from sotglp.shards.tar import tar_items
from support.shards import png, tar_of, web_dataset

SHARD = Shard("tar", "a.tar", "")


def items(content: bytes, shard: Shard = SHARD) -> tuple[list[tuple[str, str | None]], Counter[str]]:
    left_out: Counter[str] = Counter()
    found = list(tar_items(io.BytesIO(content), shard, left_out))
    return [(item.name, item.label) for item in found], left_out


def test_images_come_in_order_with_the_labels_beside_them() -> None:
    found, left_out = items(web_dataset(3))
    assert found == [("0000.png", "blue sea"), ("0001.png", "green_leaf"), ("0002.png", "red_brick")]
    assert not left_out


def test_a_compressed_archive_has_the_same_images() -> None:
    assert items(gzip.compress(web_dataset(3))) == items(web_dataset(3))


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("a.cls", b"1", "two"),
        ("a.json", b'{"caption": "x", "label": 0}', "one"),
        ("a.json", b'{"class": "two"}', "two"),
        ("a.json", b"{", None),
        ("a.txt", b"three", "three"),
        ("b.cls", b"1", None),
    ],
)
def test_labels_have_several_forms(name: str, content: bytes, label: str | None) -> None:
    shard = Shard("tar", "a.tar", "", class_names=("one", "two"))
    assert items(tar_of({"a.png": png(0), name: content}), shard)[0] == [("a.png", label)]


def test_other_files_are_counted_and_system_files_are_not() -> None:
    found, left_out = items(tar_of({"a.png": png(0), "a.mp4": b"x", "._a.png": b"x", "__MACOSX/a.png": b"x"}))
    assert found == [("a.png", None)]
    assert left_out == {".mp4": 1}


def test_names_that_leave_the_folder_and_links_open_no_file() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found, left_out = items(buffer.getvalue())
    assert (found, left_out) == ([], {".png": 1})
    assert items(tar_of({"../../etc/a.png": png(0)}))[0] == [("../../etc/a.png", None)]


@pytest.mark.parametrize("cut", [100, 512 + 100, 4096 + 200])
def test_a_truncated_archive_is_an_error_wherever_it_ends(cut: int) -> None:
    with pytest.raises(tarfile.ReadError):
        items(web_dataset(8)[:cut])


def test_an_archive_cut_between_two_members_is_an_error() -> None:
    whole = tar_of({"a.png": png(0)})
    end = 512 + -(-len(png(0)) // 512) * 512
    with pytest.raises(tarfile.ReadError, match="no end"):
        items(whole[:end])


def test_a_damaged_header_is_an_error_and_not_the_end() -> None:
    content = bytearray(tar_of({"a.png": png(0), "b.png": png(1)}))
    at = 512 + -(-len(png(0)) // 512) * 512
    content[at : at + 100] = b"\xff" * 100
    with pytest.raises(tarfile.ReadError):
        items(bytes(content))


def test_a_header_that_claims_gigabytes_is_not_read() -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**30
    with pytest.raises(tarfile.ReadError, match="header of"):
        items(header.tobuf() + bytes(2**16))
