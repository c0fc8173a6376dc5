from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sotglp import Backbone, SotglpError
from sotglp.features import banks, view_cache
from sotglp.features.banks import CachedBank, MemoryBank, Views, fill_bank
from sotglp.features.distributed import Processes
from sotglp.features.encode import encode_images
from sotglp.features.rows import EncodedImages
from sotglp.features.views import training_views
from sotglp.images.image_set import ImageSet
from sotglp.images.views import load_batches
from sotglp.settings import InferenceConfig, TrainConfig
from support.samples import tiny_clip

ALONE = Processes(torch.device("cpu"))


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


def augmented(backbone: Backbone, images: ImageSet, **changes: Any) -> Views:
    return Views(backbone, images, training_views(backbone, TrainConfig()), **{"seed": 3, "n_views": 2, **changes})


def on_disk(views: Views, root: Path, **options: Any) -> CachedBank:
    return CachedBank(views, root, ALONE, **options)


def every_row(bank: banks.Bank, views: Views) -> list[EncodedImages]:
    indices = np.arange(len(views.images))
    return [bank.rows(np.full_like(indices, view), indices) for view in range(views.n_views)]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which (view, image) go through the backbone."""
    seen: list[tuple[int, int]] = []
    encode = Views.encode

    def noted(self: Views, view: int, indices: Any, *rest: Any) -> Any:
        seen.extend((view, int(index)) for index in indices)
        return encode(self, view, indices, *rest)

    monkeypatch.setattr(Views, "encode", noted)
    return seen


@pytest.mark.parametrize("projected", [False, True])
def test_rows_are_the_backbones_own_in_half_precision(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, projected: bool
) -> None:
    views = augmented(tiny_backbone, images, projected=projected)
    for bank in (MemoryBank(views), on_disk(views, tmp_path)):
        for view, (image_features, patches, projected_patches) in enumerate(every_row(bank, views)):
            assert projected_patches == projected
            ((_, pixels),) = load_batches(images, views.transform, [range(len(images))], seed=3, epoch=view)
            plain_features, plain_patches = tiny_backbone.encode_image(pixels)
            if projected:
                plain_patches = plain_patches @ tiny_backbone.clip.visual.proj  # type: ignore[union-attr]
            torch.testing.assert_close(image_features, plain_features, rtol=1e-5, atol=1e-5)
            assert patches.dtype == torch.float16
            torch.testing.assert_close(patches.float(), plain_patches, rtol=1e-3, atol=1e-3)


def with_large_patches(backbone: Backbone, factor: float) -> Backbone:
    """A backbone whose patch tokens are scaled up, beyond float16 from a factor of about 30,000 on."""
    with torch.no_grad():
        backbone.clip.visual.ln_post.weight.mul_(factor)  # type: ignore[union-attr]
    return backbone


@pytest.mark.parametrize(("factor", "dtype"), [(1, torch.float16), (1e6, torch.float32)])
def test_memory_and_disk_hold_the_same_bits(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, factor: float, dtype: torch.dtype
) -> None:
    views = augmented(with_large_patches(tiny_backbone, factor), images)
    for one, other in zip(every_row(MemoryBank(views), views), every_row(on_disk(views, tmp_path), views), strict=True):
        assert one[1].dtype == dtype
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[1].isfinite().all()


def test_features_that_are_not_finite_are_refused(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    views = augmented(with_large_patches(tiny_backbone, float("inf")), images)
    for cache_dir in (None, tmp_path / "cache"):
        with pytest.raises(SotglpError, match="not finite"):
            fill_bank(views, cache_dir, ALONE)


@pytest.mark.parametrize("factor", [1, 1e6])
def test_the_memory_bound_counts_views_images_and_precision(
    tiny_backbone: Backbone,
    images: ImageSet,
    factor: float,
    encoded: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = augmented(with_large_patches(tiny_backbone, factor), images)
    n_bytes = 2 * 18 * (4 * 32 + (2 if factor == 1 else 4) * 16 * 64)
    monkeypatch.setattr(view_cache, "MAX_MEMORY_BYTES", n_bytes)
    MemoryBank(views)
    encoded.clear()
    monkeypatch.setattr(view_cache, "MAX_MEMORY_BYTES", n_bytes - 1)
    with pytest.raises(SotglpError, match="2 stored views of 18 images"):
        MemoryBank(views)
    # What is known beforehand is refused before the work.
    assert (encoded == []) == (factor == 1)


def test_only_what_is_missing_is_encoded(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, encoded: list[tuple[int, int]]
) -> None:
    on_disk(augmented(tiny_backbone, images, n_views=1), tmp_path)
    assert encoded == [(0, index) for index in range(18)]
    encoded.clear()
    on_disk(augmented(tiny_backbone, images), tmp_path)
    assert encoded == [(1, index) for index in range(18)]
    encoded.clear()
    on_disk(augmented(tiny_backbone, images), tmp_path)
    assert encoded == []
    # Another seed, another weight, another activation: none of it is there.
    on_disk(augmented(tiny_backbone, images, seed=4), tmp_path)
    on_disk(augmented(Backbone.from_open_clip(tiny_clip(seed=1)), images), tmp_path)
    assert len(encoded) == 4 * 18


def test_a_changed_image_is_encoded_again(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, encoded: list[tuple[int, int]]
) -> None:
    views = augmented(tiny_backbone, images, n_views=1)
    before = every_row(on_disk(views, tmp_path), views)[0][0]
    encoded.clear()
    Image.new("RGB", (40, 40), "yellow").save(str(images.images[5]))
    after = every_row(on_disk(views, tmp_path), views)[0][0]
    assert encoded == [(0, 5)]
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == [5]


def test_entries_that_break_or_vanish_are_encoded_again(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, encoded: list[tuple[int, int]]
) -> None:
    views = augmented(tiny_backbone, images)
    bank = on_disk(views, tmp_path)
    before = every_row(bank, views)
    encoded.clear()
    first, second, *_ = sorted(tmp_path.rglob("*.safetensors"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    second.unlink()
    after = every_row(bank, views)
    assert len(encoded) == 2
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_preprocessing_given_as_code_is_not_cached(images: ImageSet, tmp_path: Path) -> None:
    backbone = Backbone.from_open_clip(tiny_clip(), preprocess=lambda _: torch.ones(3, 32, 32))
    bank = fill_bank(Views(backbone, images, backbone.preprocess), tmp_path / "cache", ALONE)
    assert isinstance(bank, MemoryBank)
    for _ in range(2):
        assert len(list(encode_images(backbone, images, InferenceConfig(), tmp_path / "cache"))) == 1
    assert not (tmp_path / "cache").exists()


def test_descriptions_are_json_and_differ_where_features_differ(tiny_backbone: Backbone, images: ImageSet) -> None:
    about = augmented(tiny_backbone, images).describe()
    assert json.loads(json.dumps(about)) == about
    others = [
        augmented(tiny_backbone, images, projected=True),
        augmented(tiny_backbone, images, precision="bf16"),
        augmented(tiny_backbone, images, seed=None),
        augmented(Backbone.from_open_clip(tiny_clip(seed=1)), images),
        augmented(Backbone.from_open_clip(tiny_clip(), patch_attention="ordinary"), images),
        augmented(Backbone.from_open_clip(tiny_clip(), patch_attention="ordinary"), images, projected=True),
    ]
    assert len({json.dumps(views) for views in (about, *(other.describe() for other in others))}) == 1 + len(others)


def test_a_disk_with_too_little_space_is_refused_before_the_work(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 10_000

    monkeypatch.setattr(banks.shutil, "disk_usage", lambda _: Full)
    with pytest.raises(SotglpError, match="36 encoded views"):
        on_disk(augmented(tiny_backbone, images), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


class Writer:
    """Writes other pictures over images in the moment before they are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, image: Any, colours: list[str]) -> None:
        self.image, self.colours = Path(image), colours
        load = banks.Views.encode

        def changed(views: Views, *arguments: Any) -> Any:
            if self.colours:
                Image.new("RGB", (40, 40), self.colours.pop(0)).save(self.image)
            return load(views, *arguments)

        monkeypatch.setattr(Views, "encode", changed)


def test_an_image_that_changes_after_its_digest_is_not_stored_under_it(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = Views(tiny_backbone, images, tiny_backbone.preprocess)
    image = Path(str(images.images[4]))
    original = image.read_bytes()
    Writer(monkeypatch, image, ["blue"])
    blue = every_row(on_disk(views, tmp_path / "cache"), views)
    assert torch.equal(blue[0].image_features, every_row(MemoryBank(views), views)[0].image_features)
    image.write_bytes(original)
    found = every_row(on_disk(views, tmp_path / "cache"), views)
    assert torch.equal(found[0].image_features, every_row(MemoryBank(views), views)[0].image_features)
    assert not torch.equal(found[0].image_features, blue[0].image_features)


def test_an_image_that_keeps_changing_is_named(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = augmented(tiny_backbone, images)
    Writer(monkeypatch, images.images[4], ["blue", "red", "green", "white", "black"])
    with pytest.raises(SotglpError, match=r"4\.png: it changes while it is read"):
        on_disk(views, tmp_path / "cache")
    skipped: list[Any] = []
    assert len(on_disk(views, tmp_path / "cache", unreadable=skipped).readable) + len(skipped) == len(images)
