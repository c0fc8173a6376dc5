from __future__ import annotations

import gzip
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone
from sotglp.images.image_set import ImageSet
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring import negative_labels, ood
from sotglp.scoring.metrics import ood_metrics
from sotglp.scoring.negative_labels import class_and_negative_features, farthest, negative_score, packaged_nouns
from sotglp.scoring.predict import predict
from sotglp.settings import InferenceConfig

FOLDER = resources.files("sotglp") / "scoring" / "nouns"


def directions(n: int, seed: int, d: int = 16) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(("n_negatives", "n_groups"), [(40, 1), (250, 2)])
def test_the_score_is_the_mean_share_of_the_classes(n_negatives: int, n_groups: int) -> None:
    image, classes, negatives = directions(5, 0), directions(3, 1), directions(n_negatives, 2)
    expected = []
    for group in range(n_groups):
        texts = np.concatenate([classes.numpy(), negatives.numpy()[group::n_groups]])
        expected.append(softmax(20 * image.numpy() @ texts.T, axis=1)[:, :3].sum(axis=1))
    found = negative_score(image, classes, negatives, 20.0)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-4)


def test_negatives_are_the_candidates_that_are_least_like_the_classes() -> None:
    candidates, classes = directions(200, 3), directions(4, 4)
    nearness = np.quantile(candidates.numpy() @ classes.numpy().T, 0.95, axis=1)
    chosen = np.argsort(nearness)[:30]
    torch.testing.assert_close(farthest(candidates, classes), candidates[torch.from_numpy(chosen)])
    assert len(farthest(candidates[:2], classes)) == 1


def test_the_score_of_a_model_compares_its_class_names_with_nouns(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    encode = negative_labels.sentence_features

    def counted(backbone: Backbone, names: list[str], templates: list[str]) -> Tensor:
        calls.append(len(names))
        return encode(backbone, names, templates)

    monkeypatch.setattr(negative_labels, "sentence_features", counted)
    monkeypatch.setattr(negative_labels, "packaged_nouns", lambda: ["apple", "boat", "x" * 400, *map(str, range(20))])
    backbone = tiny_backbone
    for kept in (negative_labels._candidates, negative_labels._latest):
        kept.pop(backbone, None)
    model, images = ZeroShot(backbone, ["cat", "dog", "owl"]), torch.randn(4, 3, 32, 32)
    found = ood.score(model, images, "neglabel", 0.5)
    classes, negatives = class_and_negative_features(backbone, model.class_names)
    assert calls == [22, 3]  # the long name is skipped, and nothing is encoded twice
    assert len(negatives) == 3
    unit = F.normalize(backbone.encode_image(images)[0], dim=1)
    torch.testing.assert_close(found, negative_score(unit, classes, negatives, 2 * float(backbone.logit_scale)))
    class_and_negative_features(backbone, ["cat", "dog"])
    assert calls == [22, 3, 2]
    for kept in (negative_labels._candidates, negative_labels._latest):
        kept.pop(backbone)


def test_photos_of_other_things_are_more_like_nouns(monkeypatch: pytest.MonkeyPatch) -> None:
    some = packaged_nouns()[::10]
    monkeypatch.setattr(negative_labels, "packaged_nouns", lambda: some)
    photos = Path(str(resources.files("sotglp"))) / "demo" / "photos"
    known = ImageSet.from_path(photos / "test")
    others = ImageSet.from_flat_folder(photos / "unknown")
    model = ZeroShot(Backbone.load("photo"), known.classes).eval()
    inference = InferenceConfig(ood_method="neglabel")
    ours, theirs = (
        predict(model, images.take(range(0, len(images), len(images) // 12)), inference).ood_scores
        for images in (known, others)
    )
    assert ood_metrics(ours, theirs)["auroc"] > 0.95


def test_the_packaged_nouns_are_plain_and_have_their_licence() -> None:
    nouns = packaged_nouns()
    assert nouns == sorted(set(nouns))
    assert len(nouns) > 4000
    assert {"bicycle", "banana", "horse"} <= set(nouns)
    assert all(noun.isascii() and noun == noun.strip().lower() for noun in nouns)
    file = (FOLDER / "nouns.txt.gz").read_bytes()
    assert len(file) < 200_000
    assert gzip.decompress(file).decode() == "".join(f"{noun}\n" for noun in nouns)
    notice = (FOLDER / "NOTICE").read_text()
    assert "Princeton University" in notice
    assert "nouns.txt.gz" in notice
