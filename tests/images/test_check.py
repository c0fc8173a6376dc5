from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sotglp import SotglpError, SotglpWarning
from sotglp.errors import UnreadableImageError
from sotglp.images.check import Copies, check_set, readable_images, warn_of_two_labels
from sotglp.images.image_set import ImageSet


def test_a_sound_set(class_folders: Path) -> None:
    finding = check_set(ImageSet.from_path(class_folders))
    assert finding.counts == {"blue sea": 6, "green leaf": 6, "red_brick": 6}
    assert finding.is_valid
    assert (finding.unreadable, finding.copies, finding.singleton_classes, finding.uneven) == ({}, (), [], False)


def test_copies_are_found_by_their_bytes(class_folders: Path) -> None:
    sea, leaf = class_folders / "blue sea", class_folders / "green leaf"
    shutil.copy(sea / "2.png", sea / "2 again.png")
    images = ImageSet.from_path(class_folders)
    finding = check_set(images)
    (copies,) = finding.copies
    assert [Path(images.name(index)).name for index in copies.indices] == ["2 again.png", "2.png"]
    assert copies.labels == ("blue sea",)
    assert finding.is_valid  # no label is wrong

    shutil.copy(sea / "5.png", leaf / "0.png")
    finding = check_set(ImageSet.from_path(class_folders))
    assert [group.labels for group in finding.copies] == [("blue sea",), ("blue sea", "green leaf")]
    assert not finding.is_valid


def test_two_labels_of_an_image_are_reported(class_folders: Path) -> None:
    sea, leaf = class_folders / "blue sea", class_folders / "green leaf"
    warn_of_two_labels(ImageSet.from_path(class_folders))  # nothing
    shutil.copy(sea / "5.png", leaf / "0.png")
    (leaf / "1.png").write_bytes(b"")
    with pytest.warns(SotglpWarning, match=r"5.png .blue sea., .*0.png .green leaf."):
        warn_of_two_labels(ImageSet.from_path(class_folders))


def test_images_in_memory_have_copies_too() -> None:
    pixels = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[3] = pixels[1]
    images = ImageSet.from_items(pixels, ["a", "b", "a", "a", "b"])
    assert check_set(images).copies == (Copies((1, 3), ("a", "b")),)
    assert readable_images(images) is images


def test_unreadable_images_do_not_count(class_folders: Path) -> None:
    for place in range(6):
        (class_folders / "red_brick" / f"{place}.png").write_bytes(b"the same")
    for place in range(5):
        (class_folders / "green leaf" / f"{place}.png").write_bytes(b"")
    images = ImageSet.from_path(class_folders)
    finding = check_set(images)
    assert not finding.is_valid
    assert finding.counts == {"blue sea": 6, "green leaf": 1, "red_brick": 0}
    assert finding.singleton_classes == ["green leaf", "red_brick"]
    assert not finding.uneven  # a class without images is told as such
    assert list(finding.unreadable) == [*range(6, 11), *range(12, 18)]
    assert finding.unreadable[12].source == images.name(12)
    assert finding.copies == ()


def test_classes_that_differ_much_in_size() -> None:
    pixels = np.arange(11 * 3 * 4 * 4, dtype=np.float32).reshape(11, 3, 4, 4)
    assert check_set(ImageSet.from_items(pixels, ["a"] * 10 + ["b"])).uneven
    assert not check_set(ImageSet.from_items(pixels[1:], ["a"] * 9 + ["b"])).uneven


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(SotglpError, match="no labels to check"):
        check_set(ImageSet.from_items(torch.zeros(2, 3, 4, 4)))


def test_readable_images_keep_their_order_and_the_first_error_is_raised_if_none_are_collected(
    class_folders: Path,
) -> None:
    (class_folders / "blue sea" / "1.png").write_bytes(b"")
    (class_folders / "red_brick" / "3.png").write_bytes(b"no image")
    images = ImageSet.from_path(class_folders)
    unreadable: list[UnreadableImageError] = []
    rest = readable_images(images, unreadable)
    assert rest.images == tuple(image for i, image in enumerate(images.images) if i not in (1, 15))
    assert [Path(error.source).name for error in unreadable] == ["1.png", "3.png"]
    assert readable_images(rest) is rest
    with pytest.raises(UnreadableImageError, match=r"blue sea/1\.png: it is empty"):
        readable_images(images)


@pytest.mark.parametrize("classes", [("blue sea",), ("blue sea", "green leaf", "red_brick")])
def test_a_class_without_a_readable_image_is_refused(class_folders: Path, classes: tuple[str, ...]) -> None:
    for name in classes:
        for place in range(6):
            (class_folders / name / f"{place}.png").write_bytes(b"")
    with pytest.raises(SotglpError, match="no image of the class 'blue sea' can be read"):
        readable_images(ImageSet.from_path(class_folders), [])
