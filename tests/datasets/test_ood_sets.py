import pytest

from sotglp.datasets.ood_sets import ENTRIES
from sotglp.errors import SotglpError
from sotglp.images.decode import open_image
from support.imagenet_trees import plant

ENTRY = {entry.name: entry for entry in ENTRIES}
FLAT = {"inaturalist": "iNaturalist", "sun": "SUN", "places": "Places"}
TEXTURES = ["banded/banded_0002.jpg", "banded/banded_0010.jpg", "zigzagged/zigzagged_0001.jpg"]


@pytest.mark.parametrize(("name", "folder"), FLAT.items())
def test_images_without_labels(tmp_path, name, folder):
    images = plant(tmp_path / folder / "images", ["b.jpg", "a.jpg"])
    (images / "list.txt").write_text("a.jpg\n")
    splits = ENTRY[name].load(tmp_path)
    assert splits.test.images == (images / "a.jpg", images / "b.jpg")
    assert splits.test.labels is None
    assert (splits.classes, splits.train, splits.val) == ((), None, None)
    assert open_image(splits.test.images[1]).size == (16, 16)


@pytest.mark.parametrize("below", ["Textures/images", "Texture/images", "dtd/images", "dtd/dtd/images"])
def test_textures_in_a_folder_of_their_own_or_in_dtds(tmp_path, below):
    images = plant(tmp_path / below, TEXTURES)
    splits = ENTRY["textures"].load(tmp_path)
    assert splits.test.images == tuple(images / name for name in TEXTURES)
    assert splits.test.labels is None
    assert splits.classes == ()


def test_textures_of_their_own_go_before_dtd(tmp_path):
    plant(tmp_path / "dtd/images", TEXTURES)
    own = plant(tmp_path / "Textures/images", ["banded/mine.jpg"])
    assert ENTRY["textures"].load(tmp_path).test.images == (own / "banded/mine.jpg",)


@pytest.mark.parametrize("name", ENTRY)
def test_a_set_that_is_not_there(tmp_path, name):
    with pytest.raises(SotglpError) as caught:
        ENTRY[name].load(tmp_path)
    assert str(tmp_path / ENTRY[name].folder) in str(caught.value)
    assert ENTRY[name].source in str(caught.value)


@pytest.mark.parametrize("name", ENTRY)
def test_a_set_without_images(tmp_path, name):
    folder = tmp_path / ENTRY[name].folder
    (folder / "images").mkdir(parents=True)
    with pytest.raises(SotglpError) as caught:
        ENTRY[name].load(tmp_path)
    assert str(caught.value).startswith(f"{folder} has no images in it")


def test_entries():
    assert {entry.name: entry.counts for entry in ENTRIES} == {
        "inaturalist": {"test": 10000},
        "sun": {"test": 10000},
        "places": {"test": 10000},
        "textures": {"test": 5640},
    }
    assert {entry.role for entry in ENTRIES} == {"ood"}
    assert {entry.n_classes for entry in ENTRIES} == {0}


def test_the_layout_shown_is_one_that_is_read(tmp_path):
    for folder in FLAT.values():
        plant(tmp_path / folder / "images", ["a.jpg"])
    plant(tmp_path / "Textures/images", TEXTURES)
    for entry in ENTRIES:
        read = set(entry.load(tmp_path).test.images)
        for line in entry.layout:
            shown = set((tmp_path / entry.folder).glob(line))
            assert shown
            assert shown <= read
