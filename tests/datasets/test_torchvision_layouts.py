import json
import sys

import pytest
import torchvision
from torchvision import datasets as theirs

from sotglp.datasets import torchvision_layouts as layouts
from sotglp.errors import SotglpError
from support.dataset_trees import (
    SUN397_CLASSES,
    plant_dtd,
    plant_flowers102,
    plant_food101,
    plant_oxford_pets,
    plant_stanford_cars,
    plant_sun397_folders,
    trust_flowers,
)

READERS = {
    "oxford_pets": (plant_oxford_pets, layouts.oxford_pets_parts),
    "stanford_cars": (plant_stanford_cars, layouts.stanford_cars_parts),
    "oxford_flowers": (plant_flowers102, layouts.flowers102_parts),
    "food-101": (plant_food101, layouts.food101_parts),
    "dtd": (plant_dtd, layouts.dtd_parts),
}


@pytest.fixture(autouse=True)
def _flowers(monkeypatch):
    trust_flowers(monkeypatch)


def refused(read, folder):
    with pytest.raises(SotglpError) as caught:
        read(folder)
    message = str(caught.value)
    assert not message.endswith(".")
    assert "download=True" not in message
    return message


@pytest.mark.parametrize("content", [None, "neither JSON nor a list\n", "{"])
@pytest.mark.parametrize(
    ("folder", "split", "file"),
    [
        ("oxford_pets", "train", "oxford-iiit-pet/annotations/trainval.txt"),
        ("oxford_pets", "test", "oxford-iiit-pet/annotations/test.txt"),
        ("stanford_cars", "train", "devkit/cars_train_annos.mat"),
        ("stanford_cars", "test", "cars_test_annos_withlabels.mat"),
        ("oxford_flowers", "train", "flowers-102/setid.mat"),
        ("oxford_flowers", "train", "flowers-102/imagelabels.mat"),
        ("food-101", "test", "meta/test.json"),
        ("dtd", "val", "dtd/labels/val1.txt"),
    ],
)
def test_a_missing_or_damaged_list_is_named_by_its_split(tmp_path, folder, split, file, content):
    plant, read = READERS[folder]
    plant(tmp_path)
    (tmp_path / folder / file).unlink()
    if content:
        (tmp_path / folder / file).write_text(content)
    message = refused(read, tmp_path / folder)
    assert f"can't read the {split}" in message
    assert f"split below {tmp_path}" in message


def test_pets_with_a_class_number_beyond_the_classes(tmp_path):
    plant_oxford_pets(tmp_path)
    (tmp_path / "oxford_pets/oxford-iiit-pet/annotations/test.txt").write_text("Abyssinian_3 7 1 1\n")
    assert "OxfordIIITPet can't read the test split" in refused(layouts.oxford_pets_parts, tmp_path / "oxford_pets")


def test_flowers_are_named_by_coops_table_where_it_lies(tmp_path):
    plant_flowers102(tmp_path)
    table = tmp_path / "oxford_flowers/cat_to_name.json"
    table.write_text(json.dumps({str(number): f"flower {number}" for number in range(102, 0, -1)}))
    parts = layouts.flowers102_parts(tmp_path / "oxford_flowers")
    assert [(number, name) for _, number, name in parts["test"]] == [
        (0, "flower 1"),
        (2, "flower 3"),
        (59, "flower 60"),
    ]
    table.write_text('{"2": "rose"}')
    message = refused(layouts.flowers102_parts, tmp_path / "oxford_flowers")
    assert message.startswith(f"{table} doesn't name the classes 1 to 102;")


def test_flowers_without_names(tmp_path, monkeypatch):
    plant_flowers102(tmp_path)
    monkeypatch.delattr(theirs.Flowers102, "classes")
    assert "update it, or download" in refused(layouts.flowers102_parts, tmp_path / "oxford_flowers")


def test_the_draw_from_sun397_does_not_depend_on_torchvisions_order(tmp_path, monkeypatch):
    plant_sun397_folders(tmp_path)
    parts = layouts.sun397_parts(tmp_path / "sun397")
    found = [sample for part in parts.values() for sample in part]
    names = [name.replace("_", " ") for _, name in sorted({(number, name) for _, number, name in found})]
    assert names == list(SUN397_CLASSES.values())

    class Reversed(theirs.SUN397):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self._image_files.reverse()
            self._labels.reverse()

    monkeypatch.setattr(torchvision.datasets, "SUN397", Reversed)
    assert layouts.sun397_parts(tmp_path / "sun397") == parts


def test_sun397_without_the_names_of_its_classes(tmp_path):
    plant_sun397_folders(tmp_path)
    (tmp_path / "sun397/SUN397/ClassName.txt").unlink()
    assert "SUN397 can't read the images below" in refused(layouts.sun397_parts, tmp_path / "sun397")


def test_fetching_keeps_standard_output_free(tmp_path, monkeypatch, capsys):
    def talkative(root, download):
        assert root == tmp_path / "new/dtd"
        assert root.is_dir()
        print("Downloading", download)

    monkeypatch.setattr(torchvision.datasets, "DTD", talkative)
    layouts.fetch(tmp_path / "new", kind="DTD", below="dtd")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Downloading True\n")
    assert sys.stdout is not sys.stderr


@pytest.mark.parametrize("error", [OSError("timed out"), RuntimeError("File not found or corrupted.")])
def test_a_failed_download(tmp_path, monkeypatch, error):
    def fail(root, download):
        raise error

    monkeypatch.setattr(torchvision.datasets, "DTD", fail)
    with pytest.raises(SotglpError, match=rf"^torchvision's download of DTD failed \({str(error).rstrip('.')}\); try"):
        layouts.fetch(tmp_path, kind="DTD")
