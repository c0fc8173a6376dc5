from __future__ import annotations

from pathlib import Path

import pytest

from sotglp import SOTGLP, Backbone
from sotglp.errors import SotglpError, SotglpWarning, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.scoring.evaluation import full_evaluation
from sotglp.settings import InferenceConfig
from sotglp.shards.find import find_shards
from support.samples import tiny_clip
from support.shards import COLOURS, labelled, png, tar_of, web_dataset

INFERENCE = InferenceConfig(batch_size=4)

pytestmark = pytest.mark.filterwarnings("ignore:accuracy")


@pytest.fixture
def model() -> SOTGLP:
    return SOTGLP(Backbone.from_open_clip(tiny_clip()), list(COLOURS)).eval()


def test_archives_give_the_numbers_of_the_same_images_in_folders(model: SOTGLP, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(web_dataset(12))
    for key, content, label in labelled(12):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / label / f"{key}.png").write_bytes(content)
    folder = ImageSet.from_path(tmp_path / "photos")
    others = {"others": folder}
    found = full_evaluation(model, find_shards([tmp_path / "a.tar"]), others, INFERENCE)
    expected = full_evaluation(model, folder, others, INFERENCE)
    assert found.keys() == expected.keys()
    for name in ("accuracy", "n", "per_class", "accuracy_zero_shot", "accuracy_local", "chance"):
        assert found[name] == expected[name]
    assert found["ece"] == pytest.approx(expected["ece"], abs=1e-5)
    assert found["ood"]["others"]["auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize(("label", "said"), [(None, "has no label"), (b"sky", "label sky")])
def test_images_without_a_label_of_the_model_are_refused(
    model: SOTGLP, tmp_path: Path, label: bytes | None, said: str
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"a.png": png(0), **({"a.cls": label} if label else {})}))
    with pytest.raises(SotglpError, match=rf"a\.png in .*a\.tar .*{said}"):
        full_evaluation(model, find_shards([tmp_path / "a.tar"]), {}, INFERENCE)


def test_unreadable_images_are_collected_and_other_files_reported(model: SOTGLP, tmp_path: Path) -> None:
    members = {"a.png": png(0), "a.cls": b"blue sea", "b.png": b"no image", "b.cls": b"blue sea", "c.mp4": b"x"}
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    shards = find_shards([tmp_path / "a.tar"])
    with pytest.raises(UnreadableImageError, match=r"b\.png in"):
        full_evaluation(model, shards, {}, INFERENCE)
    unreadable: list[UnreadableImageError] = []
    with pytest.warns(SotglpWarning, match=r"\.mp4"):
        assert full_evaluation(model, shards, {}, INFERENCE, unreadable=unreadable)["n"] == 1
    assert [error.source for error in unreadable] == ["b.png"]
