from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from conftest import make_class_folders
from sotglp import SOTGLP, Backbone, SotglpError, ood
from sotglp.config import Reading
from sotglp.dataset import ImageSet
from sotglp.evaluation import evaluate, predict
from sotglp.images import UnreadableImageError


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


@pytest.fixture
def model(tiny_backbone: Backbone, images: ImageSet) -> SOTGLP:
    return SOTGLP(tiny_backbone, images.classes)


def pixels(model: SOTGLP, images: ImageSet) -> torch.Tensor:
    return torch.stack([model.backbone.preprocess(Image.open(path).convert("RGB")) for path in images.images])


def test_predictions_are_the_models(model: SOTGLP, images: ImageSet) -> None:
    said = predict(model, images, Reading(batch_size=5))
    whole = pixels(model, images)
    np.testing.assert_array_equal(said.indices, range(len(images)))
    np.testing.assert_allclose(said.probabilities, model.predict_proba(whole), rtol=1e-4)
    np.testing.assert_allclose(said.ood_scores, ood.score(model, whole), rtol=1e-5)


def test_evaluation_by_hand(model: SOTGLP, images: ImageSet, tmp_path: Path) -> None:
    others = ImageSet.from_flat_folder(make_class_folders(tmp_path / "others", per_class=3, seed=9))
    result = evaluate(model, images, {"others": others})
    with torch.no_grad():
        outputs = model(pixels(model, images))
    targets = images.targets(model.class_names)
    total = outputs.global_logits + outputs.local_logits
    for name, logits in (
        ("accuracy", total),
        ("accuracy_global", outputs.global_logits),
        ("accuracy_local", outputs.local_logits),
    ):
        assert result[name] == (logits.argmax(dim=1).numpy() == targets).mean()
    assert result["n"] == 18
    scores = torch.cat([ood.score(model, pixels(model, images)), ood.score(model, pixels(model, others))])
    expected = roc_auc_score([True] * 18 + [False] * 9, scores)
    assert result["ood"]["others"]["auroc"] == pytest.approx(expected, abs=0.01)
    assert result["ood"]["others"]["n"] == 9


def test_unreadable_images_are_left_out_or_named(model: SOTGLP, class_folders: Path) -> None:
    (class_folders / "green leaf" / "2.png").write_bytes(b"broken")
    images = ImageSet.from_path(class_folders)
    with pytest.raises(UnreadableImageError, match=r"2\.png"):
        evaluate(model, images)
    found: list[UnreadableImageError] = []
    assert evaluate(model, images, unreadable=found)["n"] == 17
    assert len(found) == 1


def test_no_readable_image_at_all(model: SOTGLP, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"broken")
    with pytest.raises(SotglpError, match="none of the 1 images can be read"):
        predict(model, ImageSet.from_flat_folder(tmp_path / "broken"), unreadable=[])


def test_labels_that_the_model_does_not_know(model: SOTGLP, images: ImageSet) -> None:
    strange = ImageSet.from_items(list(images.images), ["zebra"] * len(images))
    with pytest.raises(SotglpError, match="zebra"):
        evaluate(model, strange)
