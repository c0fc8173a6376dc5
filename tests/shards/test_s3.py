"""Shards in a bucket of moto's server on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from sotglp.errors import SotglpError
from sotglp.shards.find import find_shards
from sotglp.shards.read import read_items
from support.shards import web_dataset

moto_server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("photos")
    for i in range(2):
        system.pipe(f"photos/set/{i}.tar", web_dataset(3, seed=i))
    yield "s3://photos/set"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_archives_in_a_bucket_are_read(bucket: str) -> None:
    shards = find_shards([bucket])
    assert [shard.name for shard in shards] == [f"{bucket}/0.tar", f"{bucket}/1.tar"]
    found = list(read_items(shards[1], Counter()))
    assert [item.name for item in found] == ["0000.png", "0001.png", "0002.png"]
    assert found[2].label == "red_brick"
    assert find_shards([f"{bucket}/*.tar"]) == shards
    with pytest.raises(SotglpError, match="does not exist"):
        find_shards(["s3://photos/none"])
