import json
import warnings
from collections import Counter
from itertools import chain

import pytest
import torchvision

from sotglp.datasets.few_shot import ENTRIES
from sotglp.datasets.published import OtherSplitWarning
from sotglp.errors import SotglpError
from sotglp.images.decode import open_image
from sotglp.settings import presets
from support.dataset_trees import COOP, DRAWN, OFFICIAL, plant_fgvc_aircraft, plant_published, trust_flowers

ENTRY = {entry.name: entry for entry in ENTRIES}
PARTS = ("train", "val", "test")


def pairs(images):
    return list(zip(images.images, images.labels, strict=True))


def refused(name, root):
    with pytest.raises(SotglpError) as caught:
        ENTRY[name].load(root)
    message = str(caught.value)
    assert not message.endswith(".")
    return message


def edit_split(root, name, change):
    path = root / COOP[name].folder / COOP[name].split_file
    split = json.loads(path.read_text())
    change(split)
    path.write_text(json.dumps(split))


@pytest.mark.parametrize("torchvision_images", [False, True])
@pytest.mark.parametrize("name", COOP)
def test_the_published_split_with_images_in_the_layout_of_coop_and_of_torchvision(tmp_path, name, torchvision_images):
    expected = plant_published(tmp_path, name, torchvision_images=torchvision_images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = ENTRY[name].load(tmp_path)
    assert splits.classes == COOP[name].spoken
    for part in PARTS:
        assert pairs(getattr(splits, part)) == expected[part]
    assert open_image(splits.test.images[0]).size == (16, 16)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_split_where_the_published_one_is_not_there(tmp_path, name, monkeypatch):
    trust_flowers(monkeypatch)
    expected = OFFICIAL[name](tmp_path)
    with pytest.warns(OtherSplitWarning, match=r"has no split_zhou_.*, so its official split is read") as caught:
        splits = ENTRY[name].load(tmp_path)
    assert "numbers are not comparable" in str(caught[0].message)
    assert {part: pairs(images) for part in PARTS if (images := getattr(splits, part))} == expected
    assert set(splits.classes) == {label for _, label in expected["train"]}


@pytest.mark.parametrize("name", DRAWN)
def test_a_draw_where_there_is_no_split_at_all(tmp_path, name):
    planted = DRAWN[name](tmp_path)
    with pytest.warns(OtherSplitWarning, match=r"has no split_zhou_.*, so its images are split by a draw of our own"):
        splits = ENTRY[name].load(tmp_path)
    found = [pairs(getattr(splits, part)) for part in PARTS]
    assert sorted(chain(*found)) == sorted(planted.items())
    classes = set(planted.values())
    for images, n in zip(found, (5, 2, 3), strict=True):
        assert Counter(label for _, label in images) == dict.fromkeys(classes, n)
    with pytest.warns(OtherSplitWarning):
        again = ENTRY[name].load(tmp_path)
    assert [pairs(getattr(again, part)) for part in PARTS] == found


def test_the_classes_of_caltech101_are_in_the_order_of_its_folders(tmp_path):
    DRAWN["caltech101"](tmp_path)
    with pytest.warns(OtherSplitWarning):
        assert ENTRY["caltech101"].load(tmp_path).classes == ("face", "accordion", "airplane", "wild cat")


@pytest.mark.parametrize("name", COOP)
@pytest.mark.parametrize("part", PARTS)
def test_a_split_file_without_a_part(tmp_path, name, part):
    plant_published(tmp_path, name)
    edit_split(tmp_path, name, lambda split: split.pop(part))
    assert f"{COOP[name].split_file} has no list '{part}'" in refused(name, tmp_path)


@pytest.mark.parametrize("name", COOP)
def test_missing_images(tmp_path, name):
    expected = plant_published(tmp_path, name)
    gone = [expected["val"][1][0], expected["test"][0][0]]
    for image in gone:
        image.unlink()
    assert f"lists 2 of 18 images that are not there, the first {gone[0]};" in refused(name, tmp_path)


@pytest.mark.parametrize("name", COOP)
def test_an_extra_class(tmp_path, name):
    plant_published(tmp_path, name)
    file = COOP[name].files[0].format(3)
    edit_split(tmp_path, name, lambda split: split["test"].append([file, 77, "flying_carpet"]))
    message = refused(name, tmp_path)
    assert "has classes in test that train has no images of: flying carpet;" in message


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_split_with_a_missing_image(tmp_path, name, monkeypatch):
    trust_flowers(monkeypatch)
    image = OFFICIAL[name](tmp_path)["test"][0][0]
    image.unlink()
    message = refused(name, tmp_path)
    assert f"has no {COOP[name].split_file} (see https://" in message
    assert f"images that are not there, the first {image};" in message


@pytest.mark.parametrize("name", COOP)
def test_a_folder_with_nothing_in_it(tmp_path, name):
    (tmp_path / COOP[name].folder).mkdir()
    message = refused(name, tmp_path)
    assert message.startswith(f"{tmp_path / COOP[name].folder} has no {COOP[name].split_file} (see https://")


@pytest.mark.parametrize("name", [name for name in COOP if name != "stanford_cars"])
def test_a_split_file_without_images(tmp_path, name):
    plant_published(tmp_path, name)
    folder = tmp_path / COOP[name].folder
    (folder / COOP[name].images).rename(folder / "elsewhere")
    assert f"there is no folder {folder / COOP[name].images}" in refused(name, tmp_path)


def test_sun397_is_drawn_only_without_its_lists(tmp_path):
    DRAWN["sun397"](tmp_path)
    expected = OFFICIAL["sun397"](tmp_path)
    with pytest.warns(OtherSplitWarning, match="official"):
        assert pairs(ENTRY["sun397"].load(tmp_path).test) == expected["test"]


def test_fgvc_aircraft_has_no_split_file_and_needs_none(tmp_path):
    expected = plant_fgvc_aircraft(tmp_path, "fgvc_aircraft")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = ENTRY["fgvc_aircraft"].load(tmp_path)
    assert {part: pairs(getattr(splits, part)) for part in PARTS} == expected


def test_the_published_counts():
    counts = {entry.name: (entry.n_classes, *entry.counts.values()) for entry in ENTRIES}
    assert counts == {
        "caltech101": (100, 4128, 1649, 2465),
        "oxford_pets": (37, 2944, 736, 3669),
        "stanford_cars": (196, 6509, 1635, 8041),
        "flowers102": (102, 4093, 1633, 2463),
        "food101": (101, 50500, 20200, 30300),
        "fgvc_aircraft": (100, 3334, 3333, 3333),
        "sun397": (397, 15880, 3970, 19850),
        "dtd": (47, 2820, 1128, 1692),
        "eurosat": (10, 13500, 5400, 8100),
        "ucf101": (101, 7639, 1898, 3783),
    }
    assert all(tuple(entry.counts) == PARTS for entry in ENTRIES)


def test_each_has_a_preset_and_is_for_training():
    assert set(presets()) == {*ENTRY, "imagenet", "folder"}
    assert {entry.role for entry in ENTRIES} == {"few-shot"}


@pytest.mark.parametrize("name", ENTRY)
def test_the_layout_shown_is_one_that_is_read(tmp_path, name):
    if name == "fgvc_aircraft":
        plant_fgvc_aircraft(tmp_path, "fgvc_aircraft")
    else:
        plant_published(tmp_path, name)
    folder = tmp_path / ENTRY[name].folder
    splits = ENTRY[name].load(tmp_path)
    read = {image for part in PARTS for image in getattr(splits, part).images}
    for line in ENTRY[name].layout:
        shown = set(folder.glob(line))
        if line.endswith(".jpg"):
            assert shown
            assert shown <= read
        if line.startswith("split_zhou"):
            assert shown == {folder / COOP[name].split_file}


@pytest.mark.parametrize(
    ("name", "kind", "below"),
    [
        ("caltech101", "Caltech101", "caltech-101"),
        ("oxford_pets", "OxfordIIITPet", "oxford_pets"),
        ("flowers102", "Flowers102", "oxford_flowers"),
        ("food101", "Food101", ""),
        ("sun397", "SUN397", "sun397"),
        ("dtd", "DTD", ""),
        ("eurosat", "EuroSAT", ""),
    ],
)
def test_downloads(tmp_path, monkeypatch, name, kind, below):
    calls = []
    monkeypatch.setattr(torchvision.datasets, kind, lambda root, **options: calls.append((root, options)))
    ENTRY[name].download(tmp_path / "data")
    assert calls == [(tmp_path / "data" / below, {"download": True})]


def test_what_torchvision_cannot_fetch():
    assert [entry.name for entry in ENTRIES if entry.download is None] == ["stanford_cars", "ucf101"]
