import pytest
from torchvision.datasets import FGVCAircraft

from sotglp.datasets.list_files import read_fgvc_aircraft, sun397_parts, ucf101_parts
from sotglp.errors import SotglpError
from support.dataset_trees import plant_fgvc_aircraft, plant_sun397_lists, plant_ucf101_lists


def pairs(images):
    return list(zip(images.images, images.labels, strict=True))


def refused(read, folder):
    with pytest.raises(SotglpError) as caught:
        read(folder)
    message = str(caught.value)
    assert not message.endswith(".")
    return message


@pytest.mark.parametrize("below", ["", "fgvc-aircraft-2013b/data"])
def test_fgvc_aircraft_in_both_layouts(tmp_path, below):
    expected = plant_fgvc_aircraft(tmp_path, below)
    splits = read_fgvc_aircraft(tmp_path)
    assert splits.classes == ("707-320", "An-12", "F/A-18", "Boeing 717")
    assert {part: pairs(getattr(splits, part)) for part in ("train", "test")} == expected
    assert splits.val is None


def test_fgvc_aircraft_as_torchvision_reads_it(tmp_path):
    plant_fgvc_aircraft(tmp_path, "fgvc-aircraft-2013b/data")
    splits = read_fgvc_aircraft(tmp_path)
    for images, part in ((splits.train, "trainval"), (splits.test, "test")):
        ours = zip(map(str, images.images), images.targets(splits.classes).tolist(), strict=True)
        assert list(ours) == list(FGVCAircraft(tmp_path, split=part, loader=str))


@pytest.mark.parametrize("name", ["variants.txt", "images_variant_trainval.txt"])
def test_fgvc_aircraft_without_a_list(tmp_path, name):
    plant_fgvc_aircraft(tmp_path, "")
    (tmp_path / name).unlink()
    assert refused(read_fgvc_aircraft, tmp_path).startswith(f"{tmp_path / name} can't be opened (No such file")


def test_fgvc_aircraft_with_an_extra_class_an_empty_list_and_a_missing_image(tmp_path):
    expected = plant_fgvc_aircraft(tmp_path, "")
    image = expected["train"][0][0]
    image.unlink()
    assert f"the first {image};" in refused(read_fgvc_aircraft, tmp_path)
    path = tmp_path / "images_variant_test.txt"
    path.write_text("3000000 Concorde\n")
    assert f"{path} has the unknown class 'Concorde'" in refused(read_fgvc_aircraft, tmp_path)
    path.write_text("\n")
    assert "has no images for test;" in refused(read_fgvc_aircraft, tmp_path)
    path.write_bytes(b"3000000 Conc\xf4rde\n")
    assert f"{path} isn't UTF-8 text;" in refused(read_fgvc_aircraft, tmp_path)


def test_classes_are_numbered_by_their_list(tmp_path):
    plant_sun397_lists(tmp_path)
    assert [number for _, number, _ in sun397_parts(tmp_path / "sun397")["train"]] == [1, 2, 0]
    plant_ucf101_lists(tmp_path)
    assert [number for _, number, _ in ucf101_parts(tmp_path / "ucf101")["train"]] == [1, 0]


def test_sun397_with_an_extra_class(tmp_path):
    plant_sun397_lists(tmp_path)
    path = tmp_path / "sun397/Testing_01.txt"
    path.write_text("/m/moon/sun_a.jpg\n")
    assert f"{path} has the unknown class '/m/moon'" in refused(sun397_parts, tmp_path / "sun397")


def test_ucf101_with_broken_lists(tmp_path):
    plant_ucf101_lists(tmp_path)
    lists = tmp_path / "ucf101/ucfTrainTestlist"
    (lists / "testlist01.txt").write_text("Sleeping/v_Sleeping_g01_c01.avi\n")
    assert f"{lists}/testlist01.txt has the unknown class 'Sleeping'" in refused(ucf101_parts, tmp_path / "ucf101")
    (lists / "testlist01.txt").unlink()
    assert f"{lists}/testlist01.txt can't be opened" in refused(ucf101_parts, tmp_path / "ucf101")
    (lists / "classInd.txt").write_text("YoYo\n")
    assert "has the line 'YoYo' without a class number" in refused(ucf101_parts, tmp_path / "ucf101")
