import shutil
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet

INVISIBLE_LETTERS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
LETTERS = st.characters(exclude_characters=INVISIBLE_LETTERS, exclude_categories=["C", "Z"])
NAMES = st.text(LETTERS, min_size=1, max_size=4).map(lambda text: unicodedata.normalize("NFC", text))


def picture(value=0):
    return Image.new("RGB", (4, 3), (value, value, value))


@pytest.fixture
def root(tmp_path):
    for name in ("dog/1.png", "cat/1.png", "cat/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture().save(tmp_path / name)
    return tmp_path


def test_from_path_reads_class_folders_and_manifests_alike(root):
    (root / "list.csv").write_text("path,label\ncat/1.png,cat\ncat/2.png,cat\ndog/1.png,dog\n")
    (root / "LIST.CSV").write_text("path\ncat/2.png\n")
    folders, manifest = ImageSet.from_path(str(root)), ImageSet.from_path(root / "list.csv")
    assert folders.images == manifest.images == (root / "cat/1.png", root / "cat/2.png", root / "dog/1.png")
    assert folders.labels == manifest.labels == ("cat", "cat", "dog")
    assert ImageSet.from_path(root / "LIST.CSV").labels is None
    assert ImageSet.from_manifest(str(root / "list.csv")).labels == manifest.labels
    assert ImageSet.from_class_folders(str(root)).labels == manifest.labels


def test_from_path_of_something_else(root):
    with pytest.raises(SotglpError, match=r"1\.png is neither a folder nor a manifest; give"):
        ImageSet.from_path(root / "dog/1.png")
    with pytest.raises(SotglpError, match="nothing does not exist"):
        ImageSet.from_path(root / "nothing")


def test_from_flat_folder_has_no_labels(root):
    images = ImageSet.from_flat_folder(str(root))
    assert images.images == (root / "cat/1.png", root / "cat/2.png", root / "dog/1.png")
    with pytest.raises(SotglpError, match="have no labels"):
        _ = images.classes
    with pytest.raises(SotglpError, match="have no labels"):
        images.targets(["cat"])


@pytest.mark.parametrize("wrap", [list, tuple, np.array, iter])
def test_paths_of_any_sequence(wrap):
    images = ImageSet.from_items(wrap(["a.png", "b/c.png"]), wrap(["cat", "dog"]))
    assert images.images == (Path("a.png"), Path("b/c.png"))
    assert images.labels == ("cat", "dog")
    assert all(type(label) is str for label in images.labels)


def test_paths_and_pictures_may_be_mixed():
    first = picture()
    items = np.empty(2, dtype=object)
    items[:] = [first, Path("a.png")]
    images = ImageSet.from_items(items)
    assert images.images[0] is first
    assert [images.name(i) for i in range(len(images))] == ["image 0", "a.png"]


@pytest.mark.parametrize(
    ("images", "kept"),
    [
        (np.arange(72, dtype=np.uint8).reshape(2, 3, 3, 4), torch.uint8),
        (np.linspace(-2, 2, 72).reshape(2, 3, 3, 4), torch.float32),
        (np.linspace(-2, 2, 72).reshape(2, 3, 3, 4).astype(">f4"), torch.float32),
        (torch.linspace(-2, 2, 72).reshape(2, 3, 3, 4).half(), torch.float32),
        (torch.arange(72, dtype=torch.uint8).reshape(2, 3, 3, 4), torch.uint8),
        (torch.zeros(2, 3, 3, 4, requires_grad=True), torch.float32),
    ],
)
def test_rows_of_numbers(images, kept):
    found = ImageSet.from_items(images, ["cat", "dog"])
    assert len(found) == 2
    for row, expected in zip(found.images, images, strict=True):
        assert row.dtype == kept
        assert not row.requires_grad
        values = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
        np.testing.assert_array_equal(row.numpy(), values.astype(row.numpy().dtype))
    assert found.name(1) == "image 1"


def test_a_read_only_array_is_taken_without_a_warning():
    values = np.zeros((1, 3, 2, 2), dtype=np.uint8)
    values.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageSet.from_items(values).images[0].shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(2, 4, 4, 3), r"shape \(2, 4, 4, 3\); give uint8 or floating point .*\(B, 3, H, W\)"),
        (torch.zeros(3, 4, 4), r"shape \(3, 4, 4\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), "type torch.int64"),
        (np.zeros((2, 3, 4, 4), dtype=bool), "type bool"),
        (np.zeros((2, 3, 4, 4), dtype=complex), "type complex128"),
        (torch.zeros(0, 3, 4, 4), "there are no images"),
        ([], "there are no images"),
        ("a.png", "the images are one str; give a list"),
        (Path("a.png"), "PosixPath; give a list|WindowsPath; give a list"),
        (picture(), "the images are one Image; give a list"),
        (7, "the images are one int; give a list"),
        (["a.png", 3], "image 1 is of type int; give paths"),
        ([torch.zeros(3, 4, 4)], "image 0 is of type Tensor; give paths, PIL images or one"),
    ],
)
def test_images_of_another_kind(images, words):
    with pytest.raises(SotglpError, match=words):
        ImageSet.from_items(images)


@pytest.mark.parametrize("labels", [["cat"], ["cat", "dog", "cat"], []])
def test_labels_of_another_number(labels):
    with pytest.raises(SotglpError, match=f"2 images but {len(labels)} labels; give one label for each image"):
        ImageSet.from_items(["a.png", "b.png"], labels)


@given(st.lists(NAMES, min_size=1))
def test_classes_and_targets_are_those_of_numpy_unique(labels):
    images = ImageSet.from_items(["a.png"] * len(labels), labels)
    classes, targets = np.unique(np.array(labels), return_inverse=True)
    assert images.classes == tuple(classes.tolist())
    found = images.targets(images.classes)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, targets)


def test_targets_follow_the_order_of_the_classes_given():
    images = ImageSet.from_items(["1", "2", "3"], ["cat", "dog", "cat"])
    np.testing.assert_array_equal(images.targets(["dog", "ant", "cat"]), [2, 0, 2])


def test_labels_that_are_not_among_the_classes_are_named():
    images = ImageSet.from_items(["x"] * 9, ["cat", "cat", *"abcdefg"])
    with pytest.raises(
        SotglpError, match=r"7 of 9 images .* not among the 1 classes: a, b, c, d, e and 2 more; rename"
    ):
        images.targets(["cat"])


def test_take_keeps_order_labels_and_names():
    images = ImageSet.from_items([picture(k) for k in range(6)], list("abcdef"))
    some = images.take([5, 0, 3])
    assert some.labels == ("f", "a", "d")
    assert [image.getpixel((0, 0))[0] for image in some.images] == [5, 0, 3]
    assert [some.name(i) for i in range(3)] == ["image 5", "image 0", "image 3"]
    assert [some.take([2]).name(0), some.take([0]).name(0)] == ["image 3", "image 5"]
    assert images.take(np.array([True, False] * 3)).labels == ("a", "c", "e")
    assert ImageSet.from_items(["a", "b"]).take(np.array([1])).labels is None


def test_take_of_nothing_and_of_too_much():
    images = ImageSet.from_items(["a", "b"])
    with pytest.raises(SotglpError, match="there are no images"):
        images.take([])
    with pytest.raises(IndexError):
        images.take([2])
    with pytest.raises(IndexError):
        images.take([0.5])


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".csv", "nul\0"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(SotglpError, match="does not exist; check the path"):
        ImageSet.from_path(name)


def test_names_of_class_folders_are_composed(tmp_path):
    for name in ("caf\u00e9", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    (tmp_path / "caf\u00e9").rename(tmp_path / "cafe\u0301")
    assert set(ImageSet.from_path(tmp_path).labels or ()) == {"caf\u00e9", "dog"}
    shutil.copytree(tmp_path / "dog", tmp_path / "caf\u00e9")
    with pytest.raises(SotglpError, match=r"cafe.u0301.* have the same name"):
        ImageSet.from_path(tmp_path)
    (tmp_path / "caf\u00e9").rename(tmp_path / "dog\u200b")
    with pytest.raises(SotglpError, match="invisible character"):
        ImageSet.from_path(tmp_path)
