from dataclasses import replace

import pytest

from sotglp.datasets.entry import Entry, Splits
from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet
from support.dataset_trees import plant


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


def test_the_folder_below_the_root_is_read_through_links(tmp_path, entry):
    (tmp_path / "toy-set").symlink_to(plant(tmp_path / "elsewhere", ["b.jpg", "a.jpg"]))
    splits = entry.load(tmp_path)
    assert splits.test.images == (tmp_path / "toy-set/a.jpg", tmp_path / "toy-set/b.jpg")
    assert (splits.train, splits.val) == (None, None)


def test_a_dataset_that_is_not_there(tmp_path, entry):
    (tmp_path / "toy-set").touch()
    with pytest.raises(SotglpError, match=rf"{tmp_path}/toy-set does not exist.*get it at https://example\.org/toys"):
        entry.load(tmp_path)
    with pytest.raises(SotglpError, match="`sotglp data prepare toys`, or set another data root"):
        replace(entry, download=print).load(tmp_path)


def test_other_folders_are_read_where_the_first_is_missing(tmp_path, entry):
    entry = replace(entry, other_folders=("toys", "games"))
    assert entry.path(tmp_path) == tmp_path / "toy-set"
    (tmp_path / "games").mkdir()
    assert entry.path(tmp_path) == tmp_path / "games"


@pytest.mark.parametrize("change", [{"role": "toy"}, {"n_classes": "many"}, {"colour": "red"}])
def test_a_damaged_row_of_the_table_is_refused(entry, change):
    with pytest.raises((ValueError, TypeError)):
        replace(entry, **change)
