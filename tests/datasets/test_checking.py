import warnings
from dataclasses import replace

import pytest

from sotglp.datasets import find
from sotglp.datasets.checking import Finding, check
from support.dataset_trees import COOP, plant, plant_eurosat_folders, plant_published, plant_sun397_folders

WHOLE = {"train": 9, "val": 3, "test": 6}


@pytest.fixture
def dtd():
    """The entry of a dataset that its miniature tree is all of."""
    return replace(find("dtd"), n_classes=3, counts=WHOLE)


def test_a_whole_dataset(tmp_path, dtd):
    plant_published(tmp_path, "dtd")
    finding = check(dtd, tmp_path)
    assert finding == Finding("dtd", True, True, 3, WHOLE, 3, WHOLE, problems=(), warnings=())


def test_fewer_images_and_classes_than_published(tmp_path):
    plant_published(tmp_path, "dtd")
    finding = check(find("dtd"), tmp_path)
    assert (finding.found, finding.complete, finding.n_classes) == (True, False, 3)
    assert finding.problems == (
        "3 classes instead of 47",
        "train has 9 images instead of 2820",
        "val has 3 images instead of 1128",
        "test has 6 images instead of 1692",
    )


def test_a_dataset_that_is_not_there(tmp_path, dtd):
    finding = check(dtd, tmp_path)
    assert (finding.found, finding.complete, finding.n_classes, finding.counts) == (False, False, None, {})
    assert len(finding.problems) == 1


@pytest.mark.parametrize("name", COOP)
def test_a_broken_dataset_is_a_finding(tmp_path, name):
    expected = plant_published(tmp_path, name)
    gone = expected["test"][0][0]
    gone.unlink()
    finding = check(find(name), tmp_path)
    assert (finding.found, finding.complete, finding.n_classes, finding.counts) == (True, False, None, {})
    (problem,) = finding.problems
    assert f"the first {gone};" in problem


def test_a_disk_that_refuses_is_a_finding(tmp_path, dtd):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder / "x"))

    (tmp_path / "dtd").mkdir()
    finding = check(replace(dtd, read=refuse), tmp_path)
    assert finding.problems == (f"{tmp_path}/dtd/x can't be read (Permission denied); check its permissions",)


def test_another_split_of_all_images_is_complete_with_a_warning(tmp_path):
    plant_eurosat_folders(tmp_path)
    eurosat = replace(find("eurosat"), n_classes=3, counts={"train": 20, "val": 4, "test": 6})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finding = check(eurosat, tmp_path)
    assert (finding.complete, finding.problems) == (True, ())
    assert finding.counts == {"train": 15, "val": 6, "test": 9}
    (warning,) = finding.warnings
    assert "not comparable with published ones" in warning


def test_another_split_of_too_few_images_is_not(tmp_path):
    plant_eurosat_folders(tmp_path)
    finding = check(find("eurosat"), tmp_path)
    assert finding.problems == (
        "3 classes instead of 10",
        "30 images, fewer than the 27000 of the published split",
    )


def test_another_split_of_more_images_is_complete(tmp_path):
    plant_sun397_folders(tmp_path)
    sun397 = replace(find("sun397"), n_classes=3, counts={"train": 3, "val": 3, "test": 3})
    assert check(sun397, tmp_path).complete


def test_other_warnings_are_told_and_those_of_others_are_not(tmp_path, dtd):
    plant_eurosat_folders(tmp_path)
    (tmp_path / "eurosat/2750/River").mkdir()

    def read(folder):
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)
        return find("eurosat").read(folder)

    told = check(replace(find("eurosat"), read=read), tmp_path).warnings
    assert len(told) == 2
    assert "without images are ignored: River" in told[0]
    assert "no split_zhou_EuroSAT.json" in told[1]


def test_images_without_classes(tmp_path):
    plant(tmp_path / "SUN", ["images/a.jpg", "images/b.jpg"])
    sun = find("sun")
    finding = check(sun, tmp_path)
    assert (finding.n_classes, finding.counts, finding.problems) == (
        0,
        {"test": 2},
        ("test has 2 images instead of 10000",),
    )
    assert check(replace(sun, counts={"test": 2}), tmp_path).complete
