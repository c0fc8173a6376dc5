import pytest

from sotglp.datasets.class_folders import EUROSAT_NAMES, caltech101_parts, eurosat_parts
from sotglp.errors import SotglpError
from support.dataset_trees import plant, plant_caltech101_folders, plant_eurosat_folders


@pytest.mark.parametrize("below", ["101_ObjectCategories", "caltech101/101_ObjectCategories"])
def test_caltech101(tmp_path, below):
    planted = plant_caltech101_folders(tmp_path, below)
    parts = caltech101_parts(tmp_path / "caltech-101")
    found = [sample for part in parts.values() for sample in part]
    assert {path for path, _, _ in found} == set(planted)
    numbered = {(number, name) for _, number, name in found}
    assert numbered == {(0, "face"), (1, "accordion"), (2, "airplane"), (3, "wild_cat")}


def test_eurosat_is_numbered_as_its_ten_classes_are(tmp_path):
    plant_eurosat_folders(tmp_path)
    parts = eurosat_parts(tmp_path / "eurosat")
    found = [sample for part in parts.values() for sample in part]
    assert {(number, name) for _, number, name in found} == {(1, "Forest"), (3, "Highway or Road"), (9, "Sea or Lake")}


def test_eurosat_has_ten_classes_sorted_by_folder():
    assert list(EUROSAT_NAMES) == sorted(EUROSAT_NAMES)
    assert len(set(EUROSAT_NAMES.values())) == 10


def test_an_extra_class_of_eurosat(tmp_path):
    plant_eurosat_folders(tmp_path)
    base = plant(tmp_path / "eurosat/2750", ["Desert/1.jpg"])
    with pytest.raises(SotglpError, match=f"{base} has folders that are not classes of the dataset: Desert; "):
        eurosat_parts(tmp_path / "eurosat")


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(SotglpError, match=f"there is no folder {tmp_path}/2750; "):
        eurosat_parts(tmp_path)
    with pytest.raises(SotglpError, match=f"{tmp_path}/101_ObjectCategories or {tmp_path}/caltech101/101_Obj"):
        caltech101_parts(tmp_path)
