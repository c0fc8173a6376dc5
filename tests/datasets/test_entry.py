from dataclasses import replace

import pytest

from sotglp.datasets.entry import Entry, Splits
from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet
from support.imagenet_trees import plant


@pytest.fixture
def entry():
    return Entry(
        name="toys",
        title="Toys 3",
        role="shift",
        folder="toy-set",
        n_classes=0,
        counts={"test": 2},
        source="https://example.org/toys",
        terms="not stated",
        layout=("*.jpg",),
        read=lambda folder: Splits((), test=ImageSet.from_flat_folder(folder)),
    )


def test_the_folder_below_the_root_is_read(tmp_path, entry):
    images = plant(tmp_path / "toy-set", ["b.jpg", "a.jpg"])
    splits = entry.load(tmp_path)
    assert splits.test.images == (images / "a.jpg", images / "b.jpg")
    assert (splits.train, splits.val) == (None, None)
    assert entry.place(tmp_path) == images


def test_a_linked_folder_is_one(tmp_path, entry):
    images = plant(tmp_path / "elsewhere", ["a.jpg"])
    (tmp_path / "toy-set").symlink_to(images)
    assert len(entry.load(tmp_path).test) == 1


def test_a_dataset_that_is_not_there(tmp_path, entry):
    (tmp_path / "toy-set").touch()
    with pytest.raises(SotglpError) as caught:
        entry.load(tmp_path)
    assert str(caught.value) == (
        f"there is no Toys 3 in {tmp_path}/toy-set: get it from https://example.org/toys, or give another data root"
    )
    with pytest.raises(SotglpError, match="`sotglp data prepare toys` fetches it, or give another data root"):
        replace(entry, download=print).load(tmp_path)


def test_where_a_dataset_is_can_be_asked_before(tmp_path, entry):
    assert entry.place(tmp_path / "absent") == tmp_path / "absent/toy-set"
