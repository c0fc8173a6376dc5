from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sotglp.errors import SotglpError
from sotglp.shards.addresses import file_system, full_address, is_address, opened, version_of


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("s3:/bucket/a", "s3://bucket/a"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("memory:/a", "memory://a"),
        ("file:///tmp/a", "/tmp/a"),
        ("folder/a.tar", "folder/a.tar"),
        ("C:/a", "C:/a"),
    ],
)
def test_an_address_gets_its_slashes_back(name: str, address: str) -> None:
    assert full_address(name) == address
    assert is_address(address) == (":/" in address and not address.startswith("C"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(SotglpError, match=r"sotglp\[s3\]"):
        file_system("s3://bucket/a.tar")


def test_an_unknown_kind_of_address_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SotglpError, match="abcde"):
        file_system("abcde://a")
    for name in (str(tmp_path / "a.tar"), "memory://no/such.tar"):
        with pytest.raises(SotglpError, match="does not exist"), opened(name):
            pass


def test_a_version_is_that_of_the_content() -> None:
    assert version_of({"size": 3, "ETag": "x", "LastModified": 1}) == version_of({"size": 3, "ETag": "x"})
    assert version_of({"size": 3, "mtime": 1.5}) != version_of({"size": 3, "mtime": 2.5})
