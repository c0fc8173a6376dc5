from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sotglp import Backbone
from sotglp.images.image_set import ImageSet
from sotglp.methods.configs import ZeroShotConfig
from sotglp.scoring import choose_score as choose_score_module
from sotglp.scoring.choose_score import CANDIDATES, GROUPS, choose_score
from sotglp.settings import SHOT_SCORES, InferenceConfig, TrainConfig
from support.samples import make_class_folders

NAMES = [f"class {letter}" for letter in "abcd"]


@pytest.fixture
def four(tmp_path: Path) -> ImageSet:
    """Three images of each of four classes, whose labels nothing justifies."""
    found = ImageSet.from_path(make_class_folders(tmp_path / "train", per_class=4))
    return ImageSet.from_items(list(found.images), [NAMES[index % 4] for index in range(12)])


def test_every_candidate_is_judged_by_models_without_the_left_out_classes(
    tiny_backbone: Backbone, four: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []
    adapt = choose_score_module.adapt

    def noted(backbone: Backbone, images: ImageSet, *args: Any, **options: Any) -> Any:
        fits.append((images, list(options["classes"])))
        return adapt(backbone, images, *args, **options)

    monkeypatch.setattr(choose_score_module, "adapt", noted)
    found = choose_score(tiny_backbone, four, ZeroShotConfig(), TrainConfig(), InferenceConfig(ood_method="mcm"))
    assert len(fits) == GROUPS == found.n
    assert all(set(images.labels) == set(classes) != set(NAMES) for images, classes in fits)
    assert sorted(name for _, classes in fits for name in {*NAMES} - {*classes}) == NAMES
    assert (found.preferred, found.cost) == ("mcm", 0)
    assert set(found.merits) == {*CANDIDATES}
    without = choose_score(tiny_backbone, four, ZeroShotConfig(), TrainConfig(remember=False), InferenceConfig())
    assert set(without.merits) == {*CANDIDATES} - SHOT_SCORES


def test_three_classes_are_too_few_to_leave_some_out(tiny_backbone: Backbone, images: ImageSet) -> None:
    found = choose_score(tiny_backbone, images, ZeroShotConfig(), TrainConfig(), InferenceConfig())
    assert (found.chosen, found.rival, found.merits) == ("gl-mcm", None, {})
