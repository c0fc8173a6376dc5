from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sotglp import Backbone
from sotglp.images.check import check_set
from sotglp.images.image_set import ImageSet
from sotglp.scoring import set_review as module
from sotglp.scoring.set_review import SetReview, find_duplicate_groups, review_labels


def reviewed(folder: Path) -> SetReview:
    images = ImageSet.from_path(folder)
    return SetReview(folder.name, images, check_set(images), None, ())


def test_near_duplicates_within_and_across_classes_and_sets(class_folders: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    shutil.copytree(class_folders, test)
    for path in test.rglob("*.png"):  # other pictures
        Image.fromarray(np.asarray(Image.open(path))[::-1, :, ::-1]).rotate(90).save(path)
    sea, leaf = class_folders / "blue sea", class_folders / "green leaf"
    picture = Image.open(sea / "1.png")
    picture.resize((90, 70)).save(sea / "larger.png")
    Image.open(sea / "2.png").save(leaf / "other label.jpg", quality=95)
    Image.open(leaf / "3.png").save(test / "green leaf" / "seen.bmp")
    shutil.copy(leaf / "4.png", leaf / "copy.png")  # byte for byte, which the set's finding has already
    reviews = [reviewed(class_folders), reviewed(test)]
    groups = {group.kind: group for group in find_duplicate_groups(reviews)}
    assert len(find_duplicate_groups(reviews)) == 3
    names = {
        kind: sorted(Path(image["path"]).name for image in group.to_dict()["images"]) for kind, group in groups.items()
    }
    assert names == {
        "within_class": ["1.png", "larger.png"],
        "across_classes": ["2.png", "other label.jpg"],
        "across_sets": ["3.png", "seen.bmp"],
    }
    assert groups["across_sets"].most_bits <= 64
    # The same bytes in another set are a leak.
    shutil.copy(leaf / "4.png", test / "green leaf" / "leak.png")
    kinds = [group.kind for group in find_duplicate_groups([reviewed(class_folders), reviewed(test)])]
    assert kinds.count("across_sets") == 2


def test_doubts_are_withheld_near_chance(
    tiny_backbone: Backbone, class_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (class_folders / "red_brick" / "0.png").replace(class_folders / "blue sea" / "brick.png")
    images = ImageSet.from_path(class_folders)
    found = review_labels(images, check_set(images), tiny_backbone)
    assert found is not None
    assert not found.agreement.is_near_chance
    assert [Path(images.name(doubt.index)).name for doubt in found.doubts] == ["brick.png"]
    rng = np.random.default_rng(0)
    monkeypatch.setattr(module, "unit_features", lambda *_: rng.normal(size=(18, 32)))
    withheld = review_labels(images, check_set(images), tiny_backbone)
    assert withheld is not None
    assert withheld.agreement.is_near_chance
    assert withheld.doubts == ()
