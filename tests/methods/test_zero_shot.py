from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone, SotglpError
from sotglp.errors import OldClassesOnlyError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods import zero_shot
from sotglp.methods.configs import ZeroShotConfig
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.methods.zero_shot import ZeroShot, sentence_features
from sotglp.settings import Preset, TrainConfig
from sotglp.training.fit import adapt

NAMES = ["cat", "golden_retriever", "a rare north american water bird", "polka dot"]
TEMPLATES = ["a photo of a {}.", "a photo of a {}, a type of pet.", "{} texture."]


def said_by_open_clip(backbone: Backbone, sentences: list[str]) -> Tensor:
    """Unit text features of whole sentences of 77 tokens."""
    return F.normalize(backbone.clip.encode_text(open_clip.tokenize(sentences)), dim=-1)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_class_is_open_clips_feature_of_its_sentence(tiny_backbone: Backbone, template: str) -> None:
    names = [*NAMES, "{0} set", "{}"]  # braces in a name stay
    model = ZeroShot(tiny_backbone, names, zero_shot_template=template)
    before, after = template.split("{}")
    sentences = [before + name.replace("_", " ") + after for name in names]
    torch.testing.assert_close(model.class_vectors, said_by_open_clip(tiny_backbone, sentences), rtol=1e-5, atol=1e-6)


def test_the_ensemble_is_open_clips_zero_shot_classifier(tiny_backbone: Backbone) -> None:
    assert len(OPENAI_IMAGENET_TEMPLATES) == 80
    model = ZeroShot(tiny_backbone, NAMES, ensemble=True)
    spoken = [name.replace("_", " ") for name in NAMES]
    expected = open_clip.build_zero_shot_classifier(
        tiny_backbone.clip, open_clip.tokenize, spoken, OPENAI_IMAGENET_TEMPLATES
    )
    torch.testing.assert_close(model.class_vectors, expected.T, rtol=1e-5, atol=1e-6)
    by_hand = said_by_open_clip(tiny_backbone, [template("polka dot") for template in OPENAI_IMAGENET_TEMPLATES])
    torch.testing.assert_close(model.class_vectors[3], F.normalize(by_hand.mean(dim=0), dim=-1), rtol=1e-5, atol=1e-6)


def test_probabilities_are_the_softmax_of_scaled_cosines(tiny_backbone: Backbone, images: Tensor) -> None:
    model = ZeroShot(tiny_backbone, NAMES)
    features = tiny_backbone.clip.encode_image(images).detach().numpy().astype(np.float64)
    vectors = said_by_open_clip(tiny_backbone, [f"a photo of a {n.replace('_', ' ')}." for n in NAMES]).numpy()
    cosines = features / np.linalg.norm(features, axis=1, keepdims=True) @ vectors.T
    powers = np.exp(float(tiny_backbone.clip.logit_scale.exp()) * cosines)  # type: ignore[operator, union-attr]
    np.testing.assert_allclose(model(images).global_logits, cosines, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(images), powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)


def test_patches_are_compared_with_the_same_vectors(tiny_backbone: Backbone, images: Tensor) -> None:
    model = ZeroShot(tiny_backbone, NAMES)
    image_features, tokens = tiny_backbone.encode_image(images)
    joint = tiny_backbone.project_patches(tokens)
    expected = F.normalize(joint, dim=-1) @ model.class_vectors.T
    outputs = model(images)
    torch.testing.assert_close(outputs.patch_logits, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(outputs.local_logits, outputs.patch_logits.max(dim=1).values)
    kept = model.compare(EncodedImages(image_features, joint, projected=True), model.encode_text())
    torch.testing.assert_close(kept.patch_logits, expected, rtol=1e-5, atol=1e-6)
    # The loss does not look at patches: NaN, so that nobody takes what was left out for a cosine.
    alone = model.compare(EncodedImages(image_features, tokens), model.encode_text(), for_loss=True)
    assert torch.equal(alone.global_logits, outputs.global_logits)
    assert alone.local_logits.isnan().all()
    assert alone.patch_logits.isnan().all()


def test_chosen_classes_are_the_same_ones(tiny_backbone: Backbone) -> None:
    model = ZeroShot(tiny_backbone, NAMES)
    text = model.encode_text([2, 0])
    assert text.global_.shape == text.local.shape == (2, 1, 32)
    assert torch.equal(text.global_[:, 0], model.class_vectors[[2, 0]])
    turned = ZeroShot(tiny_backbone, NAMES[::-1])
    torch.testing.assert_close(turned.class_vectors.flip(0), model.class_vectors, rtol=1e-5, atol=1e-6)


def test_sentences_come_in_bounded_parts(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = sentence_features(tiny_backbone, NAMES, TEMPLATES)
    assert at_once.shape == (4, 3, 32)
    sizes: list[int] = []
    encode = type(tiny_backbone.text).encode

    def noted(self: object, segments: list[zero_shot.Segment]) -> list[Tensor]:
        sizes.extend(segment.n_sequences for segment in segments)
        return encode(self, segments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(tiny_backbone.text), "encode", noted)
    monkeypatch.setattr(zero_shot, "SENTENCES_AT_ONCE", 2)
    torch.testing.assert_close(sentence_features(tiny_backbone, NAMES, TEMPLATES), at_once, rtol=1e-5, atol=1e-5)
    assert (max(sizes), sum(sizes)) == (2, 12)


def test_nothing_is_learned_and_new_classes_are_as_good(
    tiny_backbone: Backbone, class_folders: Path, images: Tensor
) -> None:
    shots, template = ImageSet.from_path(class_folders), "{} texture."
    fitted = adapt(tiny_backbone, shots, ZeroShotConfig(zero_shot_template=template), TrainConfig(shots=2))
    start, new = (
        ZeroShot(tiny_backbone, names, zero_shot_template=template) for names in (shots.classes, ["dog", "sea"])
    )
    assert fitted.history == fitted.model.learned == []
    assert torch.equal(fitted.model.class_vectors, start.class_vectors)
    found = fitted.model.for_new_classes(["dog", "sea"])
    assert (found.class_names, found.training) == (("dog", "sea"), False)
    assert torch.equal(found.predict_proba(images), new.predict_proba(images))


@pytest.mark.parametrize(
    ("names", "settings", "words"),
    [
        (NAMES, {"zero_shot_template": "a photo"}, "placeholder"),
        (NAMES, {"zero_shot_template": "a {} of a {}"}, "placeholder"),
        (NAMES, {"zero_shot_template": "very " * 80 + "{}"}, "88 tokens"),
        (["cat", "very " * 80], {}, "the text tower"),
        (NAMES, {"zero_shot_templates": "{}"}, "zero_shot_templates"),
    ],
)
def test_wrong_sentences(tiny_backbone: Backbone, names: list[str], settings: dict[str, object], words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        ZeroShot(tiny_backbone, names, **settings)


@pytest.mark.parametrize("name", ["linear-probe", "tip-adapter", "gda", "proker", "pool"])
@torch.no_grad()
def test_without_text_only_what_is_learned_counts_for_images_and_for_patches(name: str) -> None:
    backbone = Backbone.load("timm:test_vit", image_size=64)
    model = build_model(backbone, ["a", "b"], METHODS[name].settings_on(Preset(), {})[0])
    features = torch.randn(6, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    model.fit_features(features, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert not model.encode_text().global_.any()
    patches = features[None]
    outputs = model.compare(EncodedImages(features[:1], patches), model.encode_text())
    torch.testing.assert_close(outputs.patch_logits[0], model.global_cosines(features, model.encode_text()))
    assert outputs.patch_logits[0].argmax(dim=1).tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(OldClassesOnlyError):
        model.for_new_classes(["c", "d"])


def test_a_method_with_text_needs_a_backbone_with_text() -> None:
    with pytest.raises(SotglpError, match=r"zero-shot .* timm:test_vit has no text tower"):
        ZeroShot(Backbone.load("timm:test_vit", image_size=64), ["a", "b"])
