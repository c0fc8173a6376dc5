from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sotglp import Backbone, SotglpError
from sotglp.features import view_cache
from sotglp.features.encode import encode_image_features
from sotglp.features.view_cache import ViewCache
from sotglp.images.image_set import ImageSet
from sotglp.settings import InferenceConfig

ABOUT = {"backbone": "tiny"}
ROW = torch.arange(3.0), torch.ones(2, 4)
N_BYTES = 3 * 4 + 2 * 4 * 2


@pytest.mark.parametrize("on_disk", [False, True])
def test_stores_of_the_same_description_share_rows(tmp_path: Path, on_disk: bool) -> None:
    cache = ViewCache(tmp_path if on_disk else None)
    cache.store(ABOUT).write("a" * 64, *ROW)
    assert cache.store(ABOUT).has("a" * 64)
    row = cache.store(ABOUT).read("a" * 64)
    assert row is not None
    assert torch.equal(row[0], ROW[0])
    assert row[1].dtype == torch.float16
    other = cache.store(ABOUT | {"arithmetic": "bfloat16"})
    assert not other.has("a" * 64)
    assert other.read("a" * 64) is None


def test_beyond_the_bound_rows_are_on_disk_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_cache, "HELD_BYTES", N_BYTES)
    store = ViewCache(tmp_path).store(ABOUT)
    for key in ("a" * 64, "b" * 64):
        store.write(key, *ROW)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    assert [store.has(key) for key in ("a" * 64, "b" * 64)] == [True, False]


def test_rows_in_memory_alone_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_cache, "MAX_MEMORY_BYTES", N_BYTES)
    store = ViewCache().store(ABOUT)
    store.write("a" * 64, *ROW)
    with pytest.raises(SotglpError, match="cache folder"):
        store.write("b" * 64, *ROW)


def test_images_beside_a_full_cache_are_encoded_each_time(
    tiny_backbone: Backbone, images: ImageSet, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_cache, "MAX_MEMORY_BYTES", 1000)
    cache = ViewCache()
    for n_runs in (1, 2):
        encode_image_features(tiny_backbone, images, InferenceConfig(), cache)
        assert sum(sent) == n_runs * len(images)
