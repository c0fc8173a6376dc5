import os
import warnings
from pathlib import Path

import pytest
from PIL import Image

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images import formats
from sotglp.images.folders import read_class_folders, read_flat_folder


@pytest.fixture(autouse=True)
def no_other_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def plant(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(root: Path):
    images, labels = read_class_folders(root)
    return [(image.relative_to(root).as_posix(), label) for image, label in zip(images, labels, strict=True)]


def test_folder_names_are_the_labels_and_the_order_is_by_name(tmp_path):
    plant(tmp_path, "tabby_cat/2.png", "tabby_cat/10.JPG", "Dog/x.jpeg", "tabby_cat/old/3.webp", "émeu 2/a.TIF")
    assert listed(tmp_path) == [
        ("Dog/x.jpeg", "Dog"),
        ("tabby_cat/10.JPG", "tabby_cat"),
        ("tabby_cat/2.png", "tabby_cat"),
        ("tabby_cat/old/3.webp", "tabby_cat"),
        ("émeu 2/a.TIF", "émeu 2"),
    ]


def test_files_are_sorted_by_their_relative_path(tmp_path):
    # "a-b" sorts before "a/": the order of whole paths isn't that of folders first or files first.
    names = ["a/1.png", "a-b/1.png", "a.png", "B.png", "a/b/0.png"]
    plant(tmp_path, *(f"cat/{name}" for name in names))
    assert [name for name, _ in listed(tmp_path)] == sorted(f"cat/{name}" for name in names)


def test_the_order_does_not_depend_on_the_order_of_the_disk(tmp_path, monkeypatch):
    plant(tmp_path, *(f"{c}/{k}.png" for c in "abc" for k in range(5)))
    expected = listed(tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, folder):
            self.entries = scandir(folder)

        def __enter__(self):
            return reversed(list(self.entries))

        def __exit__(self, *_):
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    assert listed(tmp_path) == expected


def test_hidden_files_and_those_of_operating_systems_are_ignored(tmp_path):
    plant(tmp_path, "cat/1.png", "cat/.2.png", "cat/._1.png", "cat/Thumbs.db", "cat/desktop.ini", "cat/.cache/3.png")
    plant(tmp_path, "__MACOSX/cat/1.png", ".git/1.png", "cat/@eaDir/1.png", ".DS_Store")
    assert listed(tmp_path) == [("cat/1.png", "cat")]
    assert read_flat_folder(tmp_path) == (tmp_path / "cat/1.png",)


@pytest.mark.parametrize("read", [read_class_folders, read_flat_folder])
def test_all_other_files_are_counted_by_ending_in_one_warning(tmp_path, monkeypatch, read):
    monkeypatch.setattr(formats, "reads_heic", lambda: False)
    plant(tmp_path, "cat/1.png", "cat/notes.txt", "cat/deep/more.TXT", "readme", "cat/2.png.part", "cat/2.jpg~")
    plant(tmp_path, *(f"cat/IMG_{k}.HEIC" for k in range(3)))
    with pytest.warns(SotglpWarning) as caught:
        read(tmp_path)
    (text,) = [str(one.message) for one in caught]
    for fact in ("3 files ending in .heic", "install sotglp[heic]", "2 files ending in .txt", "1 file ending in .part"):
        assert fact in text
    assert "1 file ending in .jpg~" in text
    assert "1 file without an ending" in text
    assert str(tmp_path) in text


def test_images_are_found_by_their_content_too(tmp_path):
    names = ["noending", "a.jpg_large", "b.apng", "c.mpo", "d.jpg.1"]
    for name in ["0.png", *names]:
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / name, "MPO" if name == "c.mpo" else "PNG")
    assert {name for name, _ in listed(tmp_path)} == {f"cat/{name}" for name in ["0.png", *names]}


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    plant(tmp_path, "cat/a.png/1.jpg")
    assert listed(tmp_path) == [("cat/a.png/1.jpg", "cat")]


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    plant(elsewhere, "1.png", "deep/2.png")
    plant(root, "cat/0.png", "dog/9.png")
    (root / "cat" / "more").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "deep" / "up").symlink_to(elsewhere, target_is_directory=True)
    (root / "cat" / "top").symlink_to(root, target_is_directory=True)
    (root / "cat" / "self").symlink_to(root / "cat" / "self")
    (root / "linked").symlink_to(elsewhere, target_is_directory=True)
    assert listed(root) == [
        ("cat/0.png", "cat"),
        ("cat/more/1.png", "cat"),
        ("cat/more/deep/2.png", "cat"),
        ("dog/9.png", "dog"),
        ("linked/1.png", "linked"),
        ("linked/deep/2.png", "linked"),
    ]


def test_empty_class_folders_are_left_out_with_one_warning(tmp_path):
    plant(tmp_path, "cat/1.png")
    for k in range(8):
        (tmp_path / f"empty{k}").mkdir()
    with pytest.warns(SotglpWarning, match="without images .*: empty0, empty1, .*, empty4 and 3 more") as caught:
        assert listed(tmp_path) == [("cat/1.png", "cat")]
    assert len(caught) == 1


def test_images_beside_the_class_folders_are_left_out_with_a_warning(tmp_path):
    plant(tmp_path, "cat/1.png", "stray.png")
    with pytest.warns(SotglpWarning, match=r"outside the class folders.*: stray\.png"):
        assert listed(tmp_path) == [("cat/1.png", "cat")]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["1.png"], "has images but no class folders in it; expected {root}/<class name>/image.jpg"),
        (["readme.txt"], "has no class folders in it; expected {root}/<class name>/image.jpg"),
        (["cat/notes.txt", "dog/a.cr2"], "1 file ending in .cr2"),
    ],
)
def test_a_root_without_class_folders(tmp_path, files, words):
    plant(tmp_path, *files)
    with pytest.raises(SotglpError) as caught:
        read_class_folders(tmp_path)
    assert words.format(root=tmp_path) in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("read", [read_class_folders, read_flat_folder])
def test_a_root_that_is_not_a_folder(tmp_path, read):
    for name in ("gone", "x" * 300, "nul\0", "half\ud800"):
        with pytest.raises(SotglpError, match="does not exist; check the path"):
            read(tmp_path / name)
    plant(tmp_path, "1.png")
    with pytest.raises(SotglpError, match=r"1\.png is a file; give a folder"):
        read(tmp_path / "1.png")


def test_a_flat_folder_lists_all_below_it(tmp_path):
    plant(tmp_path, "b.png", "a/2.gif", "a/1.bmp", "c/d/e.jpg")
    found = [path.relative_to(tmp_path).as_posix() for path in read_flat_folder(tmp_path)]
    assert found == ["a/1.bmp", "a/2.gif", "b.png", "c/d/e.jpg"]
    plant(tmp_path, "f/text.txt")
    with pytest.raises(SotglpError, match="f has no images in it"):
        read_flat_folder(tmp_path / "f")


def test_a_folder_without_permission(tmp_path, monkeypatch):
    plant(tmp_path, "cat/1.png")
    scandir = os.scandir

    def guarded(folder):
        if folder == tmp_path / "cat":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    # Real permissions don't bind the root user, whom tests often run as.
    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SotglpError, match=r"cat can't be read \(Permission denied\)"):
        read_class_folders(tmp_path)


def test_a_folder_that_can_be_listed_but_not_entered(tmp_path, monkeypatch):
    plant(tmp_path, "cat/1.png")
    stat = Path.stat

    def guarded(path, **options):
        if path == tmp_path / "cat":
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", guarded)
    with pytest.raises(SotglpError, match=r"cat can't be read \(Permission denied\)"):
        read_class_folders(tmp_path)


def test_a_table_of_labels_beside_images_is_suggested(tmp_path):
    # As datasets of Hugging Face are laid out.
    for name in ("train/a.png", "test/b.png", "train/metadata.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for folder in (tmp_path, tmp_path / "train"):
        with pytest.raises(SotglpError, match=f"did you mean {tmp_path / 'train' / 'metadata.csv'}.."):
            read_class_folders(folder)


def test_a_class_folder_named_as_a_missing_value_is_reported(tmp_path):
    for name in ("None/a.png", "cat/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.warns(SotglpWarning, match="'None', first in the folder None"):
        assert len(read_class_folders(tmp_path)[0]) == 2
