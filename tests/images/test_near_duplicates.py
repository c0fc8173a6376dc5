from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from sotglp.images import near_duplicates as module
from sotglp.images.near_duplicates import MOST_BITS, Hashes, find_near_duplicates


def scene(seed: int) -> Image.Image:
    """Soft spots of colour, different for each seed."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).resize((240, 180), Image.Resampling.BICUBIC)


def compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "change",
    [
        compressed,
        lambda picture: picture.resize((80, 60)),
        lambda picture: picture.resize((240, 140)),
        lambda picture: picture.convert("L"),
        lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
        lambda picture: picture.crop((4, 3, 236, 177)),
        ImageOps.mirror,
    ],
)
def test_changed_copies_are_found(change: object) -> None:
    copy = change(scene(3))  # type: ignore[operator]
    (group,) = find_near_duplicates([Hashes.of(picture) for picture in (scene(1), copy, scene(2), scene(3))])
    assert group.indices == (1, 3)
    assert group.most_bits <= MOST_BITS


def test_different_pictures_are_no_duplicates() -> None:
    assert find_near_duplicates([Hashes.of(scene(seed)) for seed in range(60)]) == []
    assert find_near_duplicates([Hashes.of(scene(0))]) == []
    assert find_near_duplicates([]) == []


def test_linked_pictures_are_one_group() -> None:
    bits = np.zeros((4, 256), bool)
    bits[1, :50] = bits[2, :100] = True
    bits[3] = True
    far = np.arange(256) % 2 == 0
    found = find_near_duplicates([Hashes(row, far) for row in bits])
    assert [(group.indices, group.most_bits) for group in found] == [((0, 1, 2), 50)]


def test_pictures_are_compared_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [scene(seed) for seed in (0, 1, 2, 3, 1, 4, 0)]
    hashes = [Hashes.of(picture) for picture in pictures]
    whole = find_near_duplicates(hashes)
    assert [group.indices for group in whole] == [(0, 6), (1, 4)]
    monkeypatch.setattr(module, "_MOST_COMPARED", 12)
    assert find_near_duplicates(hashes) == whole


def test_thousands_of_equal_pictures_are_one_group() -> None:
    (group,) = find_near_duplicates([Hashes.of(scene(0))] * 20_000 + [Hashes.of(scene(1))])
    assert (len(group.indices), group.most_bits) == (20_000, 0)
