from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sotglp import SotglpError
from sotglp.errors import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.images.readable import find_unreadable, readable_images


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    (class_folders / "blue sea" / "1.png").write_bytes(b"")
    (class_folders / "red_brick" / "3.png").write_bytes(b"no image")
    return ImageSet.from_path(class_folders)


def test_what_cannot_be_decoded_is_found_and_named(images: ImageSet) -> None:
    found = find_unreadable(images)
    assert [images.name(index) for index in found] == [error.source for error in found.values()]
    assert [Path(error.source).parts[-2:] for error in found.values()] == [
        ("blue sea", "1.png"),
        ("red_brick", "3.png"),
    ]
    assert "it is empty" in str(found[1])


def test_the_rest_keeps_its_order(images: ImageSet) -> None:
    unreadable: list[UnreadableImageError] = []
    rest = readable_images(images, unreadable)
    assert rest.images == tuple(image for i, image in enumerate(images.images) if i not in (1, 15))
    assert [Path(error.source).name for error in unreadable] == ["1.png", "3.png"]
    assert readable_images(rest) is rest


def test_the_first_is_raised_where_nobody_collects(images: ImageSet) -> None:
    with pytest.raises(UnreadableImageError, match=r"blue sea/1\.png"):
        readable_images(images)


@pytest.mark.parametrize("classes", [("blue sea",), ("blue sea", "green leaf", "red_brick")])
def test_a_class_without_a_readable_image_is_refused(class_folders: Path, classes: tuple[str, ...]) -> None:
    for name in classes:
        for place in range(6):
            (class_folders / name / f"{place}.png").write_bytes(b"")
    with pytest.raises(SotglpError, match="no image of the class 'blue sea' can be read"):
        readable_images(ImageSet.from_path(class_folders), [])


def test_tensors_are_readable() -> None:
    images = ImageSet.from_items(torch.zeros(2, 3, 4, 4), ["a", "b"])
    assert find_unreadable(images) == {}
    assert readable_images(images) is images
