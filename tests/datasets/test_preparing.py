from dataclasses import replace

import pytest

from sotglp.datasets import find
from sotglp.datasets.preparing import check_obtainable, prepare
from sotglp.errors import SotglpError
from support.dataset_trees import plant_dtd


def test_a_download_goes_beside_its_place_and_then_there(tmp_path):
    roots = []

    def download(root):
        roots.append(root)
        plant_dtd(root)
        (root / "dtd.tar.gz").write_text("archive")
        assert list((tmp_path / "data").iterdir()) == [root]

    root = tmp_path / "data"
    assert prepare(replace(find("dtd"), download=download), root)
    assert roots[0].parent == root
    assert roots[0].name.startswith(".dtd.")
    assert list(root.iterdir()) == [root / "dtd"]
    assert (root / "dtd/dtd/labels/train1.txt").is_file()


def test_what_is_there_stays_as_it_is(tmp_path):
    def download(root):
        raise AssertionError("the dataset is there")

    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd/mine.txt").write_text("mine")
    assert not prepare(replace(find("dtd"), download=download), tmp_path)
    assert (tmp_path / "dtd/mine.txt").read_text() == "mine"
    (tmp_path / "ucf101").mkdir()
    assert not prepare(find("ucf101"), tmp_path)


def test_a_folder_that_came_into_being_meanwhile_stays(tmp_path):
    def download(root):
        plant_dtd(root)
        (tmp_path / "dtd").mkdir()
        (tmp_path / "dtd/mine.txt").write_text("mine")

    with pytest.raises(SotglpError, match=r"DTD\) can't be written to .*dtd \("):
        prepare(replace(find("dtd"), download=download), tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["dtd", "mine.txt"]


@pytest.mark.parametrize("error", [SotglpError("no network"), KeyboardInterrupt()])
def test_a_failed_download_leaves_nothing(tmp_path, error):
    def download(root):
        (root / "dtd/dtd").mkdir(parents=True)
        raise error

    with pytest.raises(type(error)):
        prepare(replace(find("dtd"), download=download), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SotglpError, match=r"can't be written to .*file/dtd .*: choose a writable data root"):
        prepare(find("dtd"), tmp_path / "file")


def test_what_exists_or_can_be_downloaded_is_obtainable(tmp_path):
    cars = find("stanford_cars")
    for attempt in (check_obtainable, prepare):
        with pytest.raises(SotglpError) as caught:
            attempt(cars, tmp_path)
        message = str(caught.value)
        assert all(text in message for text in (cars.source, str(tmp_path / "stanford_cars"), *cars.layout))
    assert list(tmp_path.iterdir()) == []
    check_obtainable(find("dtd"), tmp_path)
    (tmp_path / "stanford_cars").mkdir()
    check_obtainable(cars, tmp_path)
