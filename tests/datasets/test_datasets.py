"""The table of datasets, and each of its entries on a miniature tree."""

import warnings
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torchvision

from sotglp import datasets
from sotglp.datasets import ENTRIES
from sotglp.datasets.split_file import OtherSplitWarning
from sotglp.errors import SotglpError
from sotglp.images.decode import open_image
from sotglp.settings import presets
from support.dataset_trees import COOP, DRAWN, OFFICIAL, plant, plant_fgvc_aircraft, plant_published, trust_flowers

PARTS = ("train", "val", "test")
IMAGENETS = [name for name in ENTRIES if name.startswith("imagenet")]
OOD = {
    **{"inaturalist": "iNaturalist", "sun": "SUN", "places": "Places", "textures": "Textures"},
    **{"ssb_hard": "ssb_hard", "ninco": "ninco", "openimage_o": "openimage_o"},
}
TEXTURES = ["banded/banded_0002.jpg", "banded/banded_0010.jpg", "zigzagged/zigzagged_0001.jpg"]


def pairs(images):
    return list(zip(images.images, images.labels, strict=True))


def refused(name, root):
    with pytest.raises(SotglpError) as caught:
        ENTRIES[name].load(root)
    return str(caught.value)


def test_every_entry_is_complete_and_has_its_own_folder():
    roles = [entry.role for entry in ENTRIES.values()]
    assert roles == sorted(roles, key=["few-shot", "shift", "ood"].index)
    assert Counter(roles) == {"few-shot": 11, "shift": 4, "ood": 7}
    assert len({entry.folder for entry in ENTRIES.values()}) == len(ENTRIES)
    for name, entry in ENTRIES.items():
        assert entry.name == name
        assert entry.source.startswith("https://")
        assert entry.terms
        assert entry.layout
        assert ("train" in entry.counts, "test" in entry.counts) == (entry.role == "few-shot", True)
        assert (entry.n_classes == 0) == (entry.role == "ood")
        assert ("val" in entry.counts) == (entry.role == "few-shot" and name not in ("imagenet", "fgvc_aircraft"))


def test_names_by_role():
    assert datasets.names() == list(ENTRIES)
    assert set(presets()) == {*datasets.names("few-shot"), "folder"}
    assert datasets.names("ood") == list(OOD)


def test_find():
    assert datasets.find("dtd").title.startswith("Describable Textures")
    with pytest.raises(SotglpError, match=r"'oxford_pet' \(did you mean oxford_pets\?\)"):
        datasets.find("oxford_pet")


def test_the_data_root(monkeypatch):
    monkeypatch.delenv("SOTGLP_DATA", raising=False)
    assert datasets.data_root() == Path("data")
    monkeypatch.setenv("SOTGLP_DATA", "/mine")
    assert datasets.data_root() == Path("/mine")
    assert datasets.data_root(Path("here")) == Path("here")
    monkeypatch.setenv("SOTGLP_DATA", "")
    assert datasets.data_root(None) == Path("data")


@pytest.mark.parametrize("torchvision_images", [False, True])
@pytest.mark.parametrize("name", COOP)
def test_the_published_split_with_images_in_the_layout_of_coop_and_of_torchvision(tmp_path, name, torchvision_images):
    expected = plant_published(tmp_path, name, torchvision_images=torchvision_images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = ENTRIES[name].load(tmp_path)
    assert splits.classes == COOP[name].classes
    for part in PARTS:
        assert pairs(getattr(splits, part)) == expected[part]
    assert open_image(splits.test.images[0]).size == (16, 16)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_split_without_a_split_file(tmp_path, name, monkeypatch):
    trust_flowers(monkeypatch)
    expected = OFFICIAL[name](tmp_path)
    with pytest.warns(OtherSplitWarning, match=r"has no split_zhou_.*, so its official split is read"):
        splits = ENTRIES[name].load(tmp_path)
    assert {part: pairs(images) for part in PARTS if (images := getattr(splits, part))} == expected
    assert set(splits.classes) == {label for _, label in expected["train"]}
    image = expected["test"][0][0]
    image.unlink()
    assert f"images that do not exist, the first {image};" in refused(name, tmp_path)


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawn_split_where_there_is_no_other(tmp_path, name):
    planted = DRAWN[name](tmp_path)
    with pytest.warns(OtherSplitWarning, match=r"has no split_zhou_.*, so half of each class is drawn"):
        splits = ENTRIES[name].load(tmp_path)
    found = [pairs(getattr(splits, part)) for part in PARTS]
    assert sorted(chain(*found)) == sorted(planted.items())
    classes = set(planted.values())
    for images, n in zip(found, (5, 2, 3), strict=True):
        assert Counter(label for _, label in images) == dict.fromkeys(classes, n)
    with pytest.warns(OtherSplitWarning):
        again = ENTRIES[name].load(tmp_path)
    assert [pairs(getattr(again, part)) for part in PARTS] == found


def test_sun397_is_drawn_only_without_its_lists(tmp_path):
    DRAWN["sun397"](tmp_path)
    expected = OFFICIAL["sun397"](tmp_path)
    with pytest.warns(OtherSplitWarning, match="official"):
        assert pairs(ENTRIES["sun397"].load(tmp_path).test) == expected["test"]


@pytest.mark.parametrize("name", ENTRIES)
def test_a_dataset_that_is_missing_or_empty_is_named(tmp_path, name):
    folder = tmp_path / ENTRIES[name].folder
    message = refused(name, tmp_path)
    assert str(folder) in message
    assert ENTRIES[name].source in message or f"sotglp data prepare {name}" in message
    (folder / "images").mkdir(parents=True)
    assert str(folder) in refused(name, tmp_path)


@pytest.mark.parametrize(("name", "folder"), OOD.items())
def test_out_of_distribution_images_have_no_labels(tmp_path, name, folder):
    images = plant(tmp_path / folder / "images", TEXTURES)
    (images / "list.txt").write_text("a.jpg\n")
    splits = ENTRIES[name].load(tmp_path)
    assert splits.test.images == tuple(images / file for file in TEXTURES)
    assert (splits.test.labels, splits.classes, splits.train, splits.val) == (None, (), None, None)


def test_textures_are_those_of_dtd_without_a_folder_of_textures(tmp_path):
    for below in ("dtd/dtd/images", "Texture/images", "Textures/images"):
        images = plant(tmp_path / below, TEXTURES)
        assert ENTRIES["textures"].load(tmp_path).test.images == tuple(images / file for file in TEXTURES)


@pytest.mark.parametrize("name", sorted(ENTRIES.keys() - set(IMAGENETS)))
def test_the_layout_shown_is_the_one_that_is_read(tmp_path, name):
    entry = ENTRIES[name]
    if name == "fgvc_aircraft":
        plant_fgvc_aircraft(tmp_path, "fgvc_aircraft")
    elif name in COOP:
        plant_published(tmp_path, name)
    else:
        plant(tmp_path / entry.folder / "images", ["a.jpg", *TEXTURES])
    splits = entry.load(tmp_path)
    read = {image for part in PARTS if (images := getattr(splits, part)) for image in images.images}
    for pattern in entry.layout:
        shown = set((tmp_path / entry.folder).glob(pattern))
        if pattern.endswith(".jpg"):
            assert shown
            assert shown <= read
        if pattern.startswith("split_zhou"):
            assert len(shown) == 1


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.download])
def test_a_download_is_torchvisions_into_the_folder_of_the_entry(tmp_path, monkeypatch, name):
    entry, calls = ENTRIES[name], []
    monkeypatch.setattr("sotglp.datasets.torchvision_layouts._fetch_archive", lambda url, root: calls.append(root))
    kind = entry.download.keywords["kind"]
    if kind != "FGVCAircraft":
        monkeypatch.setattr(torchvision.datasets, kind, lambda root, download: calls.append(root))
    entry.download(tmp_path)
    assert calls[0] in (tmp_path, tmp_path / entry.folder)


def test_what_torchvision_cannot_download():
    there = [name for name, entry in ENTRIES.items() if entry.download]
    assert set(datasets.names("few-shot")) - set(there) == {"imagenet", "stanford_cars", "ucf101"}
