from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp import Backbone, SotglpError, SotglpWarning
from sotglp.features.encode import encode_images
from sotglp.features.view_cache import ViewCache
from sotglp.features.views import encode_pixels
from sotglp.images.image_set import ImageSet
from sotglp.methods.clip_lora import ClipLora
from sotglp.methods.method import METHODS
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.baseline import predict_beside
from sotglp.scoring.calibration import calibrate_crossed
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.predict import predict, predict_each, text_of
from sotglp.settings import InferenceConfig, Preset, TrainConfig
from sotglp.training.fit import adapt
from support.prompt_models import NAMES, fit
from support.samples import preprocessed, tiny_clip
from support.towers import small_coca, small_convolutional, small_resnet, small_vit

QUICK = {"augment": False, "epochs": 4, "batch_size": 9, "learning_rate": 0.01}


@pytest.fixture
def shots(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


def ordinary_vit() -> Backbone:
    return Backbone.from_open_clip(small_vit(), patch_attention="ordinary")


BOTH_TOWERS: list[Callable[[], Backbone]] = [
    lambda: Backbone.from_open_clip(tiny_clip()),
    ordinary_vit,
    lambda: Backbone.from_open_clip(small_coca()),
]


def moved(backbone: Backbone, **settings: Any) -> ClipLora:
    """A model whose towers have changed visibly."""
    model = ClipLora(backbone, NAMES, **settings)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.learned:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def pixels(backbone: Backbone) -> Tensor:
    return torch.randn(3, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def merged_clip(model: ClipLora) -> Any:
    """open_clip's own model with the updates in its weights, by the formula of the paper."""
    clip: Any = copy.deepcopy(model.backbone.frozen.clip)
    text = getattr(clip, "text", clip)
    scale = model.config.alpha / model.config.rank**0.5
    for tower, down, up in (
        (clip.visual.transformer, model.image_down, model.image_up),
        (text.transformer, model.text_down, model.text_up),
    ):
        for block, block_down, block_up in zip(tower.resblocks, down, up, strict=True):
            assert type(block.attn) is nn.MultiheadAttention
            for weight, own_down, own_up in zip(block.attn.in_proj_weight.chunk(3), block_down, block_up, strict=True):
                weight += scale * own_up @ own_down
    return clip


@pytest.mark.parametrize("make", [*BOTH_TOWERS, lambda: Backbone.from_open_clip(small_convolutional())])
def test_it_starts_as_zero_shot(make: Callable[[], Backbone]) -> None:
    backbone = make()
    images = pixels(backbone)
    with torch.no_grad():
        found, expected = (kind(backbone, NAMES).eval()(images) for kind in (ClipLora, ZeroShot))
    if backbone.patch_attention == "value" and not hasattr(backbone.clip, "text_decoder"):
        assert torch.equal(found.global_logits, expected.global_logits)
        assert torch.equal(found.patch_logits, expected.patch_logits)
    else:  # torch's own attention rounds otherwise
        torch.testing.assert_close(found.global_logits, expected.global_logits)


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("make", BOTH_TOWERS)
def test_both_towers_are_open_clips_with_summed_weights(make: Callable[[], Backbone], learns: bool) -> None:
    backbone = make()
    model = moved(backbone, rank=3, alpha=2.0, input_dropout=0.0)
    clip, images = merged_clip(model), pixels(backbone)
    tokens = open_clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    if hasattr(clip, "text_decoder"):  # CoCa's tokens leave room for its class embedding
        tokens = tokens[:, :76]
    with torch.no_grad():
        image, text = (F.normalize(part, dim=-1) for part in (clip.encode_image(images), clip.encode_text(tokens)))
        model.backbone.train(learns)
        features, _ = model.backbone.encode_image(images)
        vectors = model.encode_text().global_[:, 0]
    torch.testing.assert_close(F.normalize(features, dim=-1), image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vectors, text, rtol=1e-4, atol=1e-5)
    assert (image - F.normalize(backbone.encode_image(images)[0], dim=-1)).abs().max() > 0.01


def test_slopes_of_the_loss_are_those_of_finite_differences() -> None:
    backbone = Backbone.from_open_clip(tiny_clip()).double()
    model = moved(backbone, rank=1, input_dropout=0.0).train()
    images, targets = pixels(backbone).double(), torch.tensor([2, 0, 1])

    def loss() -> Tensor:
        encoded = encode_pixels(model.backbone, images, "fp32")
        return model.compute_loss(model.compare(encoded, model.encode_text(), for_loss=True), targets).total

    loss().backward()
    for parameter in model.learned:
        assert parameter.grad is not None
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * direction
                values.append(loss())
                parameter -= step * direction
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-7)


def test_updates_alone_are_learned_and_lower_the_loss(tiny_backbone: Backbone, shots: ImageSet) -> None:
    before = copy.deepcopy(tiny_backbone.clip.state_dict())
    fitted = fit(tiny_backbone, shots, "clip-lora", **{**QUICK, "epochs": 10})
    model = fitted.model
    assert [name for name, value in model.named_parameters() if value.requires_grad] == list(ClipLora.kept)
    assert all(getattr(model, name).any() for name in ClipLora.kept)
    assert fitted.history[-1]["loss"] < 0.8 * fitted.history[0]["loss"]
    # The frozen weights are shared, not copied, and keep their values.
    assert model.backbone.frozen is tiny_backbone
    assert model.backbone.fingerprint == tiny_backbone.fingerprint
    for name, value in model.backbone.clip.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() == tiny_backbone.clip.state_dict()[name].data_ptr()
    assert not model.backbone.training
    other = model.for_new_classes(["cat", "dog"])
    assert other.class_names == ("cat", "dog")
    assert torch.equal(other.image_up, model.image_up)


def test_dropout_comes_from_the_seed_of_the_run(tiny_backbone: Backbone, shots: ImageSet) -> None:
    torch.manual_seed(0)
    first = fit(tiny_backbone, shots, "clip-lora", **QUICK)
    torch.manual_seed(1)
    second = fit(tiny_backbone, shots, "clip-lora", **QUICK)
    assert first.history == second.history
    other = fit(tiny_backbone, shots, "clip-lora", input_dropout=0.0, **QUICK)
    assert other.history[-1]["loss"] != first.history[-1]["loss"]


def test_gradients_of_parts_add_up(tiny_backbone: Backbone, shots: ImageSet) -> None:
    settings = {**QUICK, "input_dropout": 0.0, "optimizer": "sgd"}
    whole, parts = (fit(tiny_backbone, shots, "clip-lora", micro_batch=size, **settings).model for size in (None, 4))
    for name in ClipLora.kept:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-3, atol=1e-6)


def test_features_of_a_changed_tower_are_never_stored(
    tiny_backbone: Backbone, shots: ImageSet, sent: list[int]
) -> None:
    cache = ViewCache()
    settings, config = METHODS["clip-lora"].settings_on(Preset(), {**QUICK, "epochs": 2, "shots": None})
    fitted = adapt(tiny_backbone, shots, settings, config, cache_dir=cache)
    assert sum(sent) == 3 * len(shots)  # two epochs, and the features that the model remembers
    assert fitted.model.shots is not None
    assert fitted.model.shots.patches is None
    (own, frozen) = (
        next(encode_images(backbone, shots, InferenceConfig(), cache))[1].image_features
        for backbone in (fitted.model.backbone, tiny_backbone)
    )
    assert (own - frozen).abs().max() > 1e-3


def test_stored_views_are_asked_for_in_vain(tiny_backbone: Backbone, shots: ImageSet) -> None:
    with pytest.warns(SotglpWarning, match="can't use views = 2"):
        fit(tiny_backbone, shots, "clip-lora", **{**QUICK, "augment": True, "views": 2, "epochs": 1})


@pytest.mark.parametrize("make", [small_convolutional, small_resnet])
def test_of_a_tower_without_attention_images_are_encoded_once(
    make: Callable[[], Any], shots: ImageSet, sent: list[int]
) -> None:
    backbone = Backbone.from_open_clip(make())
    with pytest.warns(SotglpWarning, match="image tower of .* has no attention"):
        fitted = fit(backbone, shots, "clip-lora", **QUICK)
    assert sum(sent) == 2 * len(shots)  # before the first of four epochs, and to be remembered
    model = fitted.model
    assert (model.image_down, model.image_up) == (None, None)
    assert set(model.kept_tensors()) == {"text_down", "text_up"}
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    assert model.shots.patches is not None
    assert torch.equal(
        model.shots.features, F.normalize(backbone.encode_image(preprocessed(backbone, shots))[0], dim=-1)
    )


def test_backbones_without_a_tower_for_it_are_refused(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SotglpError, match="no text tower"):
        ClipLora(Backbone.load("timm:test_vit", "none", image_size=64), NAMES)
    monkeypatch.setattr("sotglp.methods.clip_lora.attentions", lambda tower: [])
    with pytest.raises(SotglpError, match="CLIP has none"):
        ClipLora(tiny_backbone, NAMES)


def test_the_baseline_is_the_frozen_backbone(tiny_backbone: Backbone, shots: ImageSet) -> None:
    model = fit(tiny_backbone, shots, "clip-lora", **QUICK).model
    inference = InferenceConfig(ood_method="knn")
    found, beside = predict_beside(model, text_of(model, inference), shots, inference)
    assert beside is not None
    expected = predict(ZeroShot(tiny_backbone, model.class_names), shots)
    assert (beside.probabilities == expected.probabilities).all()
    assert (found.probabilities == predict(model, shots, inference).probabilities).all()
    assert (found.probabilities != beside.probabilities).any()


def test_each_model_of_the_folds_encodes_images_itself(tiny_backbone: Backbone, shots: ImageSet) -> None:
    model = fit(tiny_backbone, shots, "clip-lora", **QUICK).model
    config, inference = TrainConfig(**QUICK, optimizer="adamw"), InferenceConfig()
    crossed = cross_fit(model, shots, config, inference, n_folds=2)
    assert all(one.backbone.frozen is tiny_backbone for one in crossed.models)
    calibration = calibrate_crossed(crossed, shots, inference, 0.9)
    by_model = predict_each([model, *calibration.fold_models], shots, inference, score_all=False)
    for one, own in zip((model, *calibration.fold_models), by_model, strict=True):
        assert (own.probabilities == predict(one, shots, inference).probabilities).all()
    assert [len(own.ood_scores) > 0 for own in by_model] == [True, False, False]
