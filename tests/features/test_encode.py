from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sotglp import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.features.encode import encode_images
from sotglp.features.views import Batch
from sotglp.images.image_set import ImageSet
from sotglp.images.stored import StoredImage
from sotglp.settings import InferenceConfig


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


def plain(backbone: Backbone, images: ImageSet) -> tuple[Tensor, Tensor]:
    pixels = [backbone.preprocess(Image.open(path).convert("RGB")) for path in images.images]  # type: ignore[arg-type]
    return backbone.encode_image(torch.stack(pixels))


def whole(batches: list[Batch]) -> tuple[list[int], Tensor, Tensor]:
    features, patches = (torch.cat([encoded[part] for _, encoded in batches]) for part in (0, 1))  # type: ignore[misc]
    return np.concatenate([indices for indices, _ in batches]).tolist(), features, patches


@pytest.mark.parametrize("cached", [False, True])
def test_all_images_come_in_order_and_in_batches(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, cached: bool
) -> None:
    cache_dir = tmp_path / "cache" if cached else None
    batches = list(encode_images(tiny_backbone, images, InferenceConfig(batch_size=7), cache_dir))
    assert [len(batch[0]) for batch in batches] == [7, 7, 4]
    indices, features, patches = whole(batches)
    expected_features, expected_patches = plain(tiny_backbone, images)
    assert indices == list(range(18))
    torch.testing.assert_close(features, expected_features, rtol=1e-4, atol=1e-5)
    # Stored patches are in half precision.
    tolerance = 1e-3 if cached else 1e-4
    torch.testing.assert_close(patches.float(), expected_patches, rtol=tolerance, atol=tolerance)
    assert not features.requires_grad


def test_a_second_run_looks_them_up(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, sent: list[int]) -> None:
    first = whole(list(encode_images(tiny_backbone, images, InferenceConfig(), tmp_path / "cache")))
    assert sum(sent) == 18
    again = whole(list(encode_images(tiny_backbone, images, InferenceConfig(batch_size=5), tmp_path / "cache")))
    assert sum(sent) == 18
    assert again[0] == first[0]
    assert torch.equal(again[1], first[1])
    assert torch.equal(again[2], first[2])
    list(encode_images(tiny_backbone, images, InferenceConfig()))
    assert sum(sent) == 36


def test_without_a_cache_few_batches_are_encoded_before_they_are_asked_for(
    tiny_backbone: Backbone, images: ImageSet, sent: list[int]
) -> None:
    batches = encode_images(tiny_backbone, images, InferenceConfig(batch_size=1))
    assert sent == []
    next(batches)
    assert 1 <= len(sent) <= torch.get_num_threads() + 2 < len(images)


def test_features_are_the_same_bits_on_any_number_of_cores(tiny_backbone: Backbone, images: ImageSet) -> None:
    found, before = [], torch.get_num_threads()
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        batches = list(encode_images(tiny_backbone, images, InferenceConfig(batch_size=2)))
        found.append([torch.cat(parts) for parts in zip(*(encoded[:2] for _, encoded in batches), strict=True)])
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


@pytest.mark.parametrize("cached", [False, True])
def test_unreadable_images_are_left_out_or_named(
    tiny_backbone: Backbone, class_folders: Path, tmp_path: Path, cached: bool
) -> None:
    images = ImageSet.from_path(class_folders)
    broken, missing = images.images[2], images.images[7]
    assert isinstance(broken, Path)
    assert isinstance(missing, Path)
    broken.write_bytes(b"broken")
    missing.unlink()
    cache_dir = tmp_path / "cache" if cached else None
    with pytest.raises(UnreadableImageError, match="can't read"):
        list(encode_images(tiny_backbone, images, InferenceConfig(), cache_dir))
    for _ in range(2):
        found: list[UnreadableImageError] = []
        indices, features, _ = whole(
            list(encode_images(tiny_backbone, images, InferenceConfig(batch_size=4), cache_dir, found))
        )
        readable = [index for index in range(18) if index not in (2, 7)]
        assert indices == readable
        assert {str(error.source) for error in found} == {str(broken), str(missing)}
        torch.testing.assert_close(features, plain(tiny_backbone, images.take(readable))[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["pictures", "pixels", "ready"])
def test_images_in_memory(tiny_backbone: Backbone, images: ImageSet, tmp_path: Path, form: str) -> None:
    pictures = [Image.open(path).convert("RGB") for path in images.images]  # type: ignore[arg-type]
    items: dict[str, Any] = {
        "pictures": pictures,
        "pixels": torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]),
        "ready": torch.stack([tiny_backbone.preprocess(picture) for picture in pictures]),
    }
    for cache_dir in (None, tmp_path / "cache"):
        _, features, _ = whole(
            list(encode_images(tiny_backbone, ImageSet.from_items(items[form]), InferenceConfig(), cache_dir))
        )
        torch.testing.assert_close(features, plain(tiny_backbone, images)[0], rtol=1e-4, atol=1e-5)


def test_images_that_are_encoded_already_take_their_place(
    tiny_backbone: Backbone, images: ImageSet, tmp_path: Path
) -> None:
    features, patches = plain(tiny_backbone, images)
    mixed = ImageSet(
        tuple(
            StoredImage(features[index], patches[index]) if index % 3 == 0 else image
            for index, image in enumerate(images.images)
        )
    )
    indices, *found = whole(list(encode_images(tiny_backbone, mixed, InferenceConfig(batch_size=7), tmp_path)))
    assert indices == list(range(18))
    torch.testing.assert_close(found, [features, patches], rtol=1e-4, atol=1e-5)

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    unreadable: list[UnreadableImageError] = []
    few = ImageSet((broken, mixed.images[0], mixed.images[1]))
    batches = list(encode_images(tiny_backbone, few, InferenceConfig(), unreadable=unreadable))
    assert whole(batches)[0] == [1, 2]
    assert [error.source for error in unreadable] == [str(broken)]
