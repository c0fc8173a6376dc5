from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sotglp import Backbone
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.clip_adapter import ClipAdapter
from sotglp.methods.zero_shot import ZeroShot
from support.prompt_models import NAMES, fit


@pytest.mark.parametrize("mix", [0.0, 0.2, 0.7, 1.0])
def test_logits_are_the_formula_of_the_paper(tiny_backbone: Backbone, images: Tensor, mix: float) -> None:
    model = ClipAdapter(tiny_backbone, NAMES, mix=mix)
    f = tiny_backbone.clip.encode_image(images).detach().double().numpy()
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    down, up, vectors = (part.detach().double().numpy() for part in (model.down, model.up, model.class_vectors))
    adapted = np.maximum(np.maximum(f @ down.T, 0) @ up.T, 0)
    mixed = mix * adapted + (1 - mix) * f
    cosines = mixed / np.linalg.norm(mixed, axis=1, keepdims=True) @ vectors.T
    np.testing.assert_allclose(model(images).global_logits.detach(), cosines, rtol=1e-4, atol=1e-6)
    powers = np.exp(tiny_backbone.logit_scale * cosines)
    np.testing.assert_allclose(model.predict_proba(images), powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)
    torch.testing.assert_close(model(images).patch_logits, ZeroShot(tiny_backbone, NAMES)(images).patch_logits)


@pytest.mark.parametrize(("reduction", "hidden"), [(4, 8), (1, 32), (1000, 1)])
def test_layers_start_like_torchs_linear_ones(tiny_backbone: Backbone, reduction: int, hidden: int) -> None:
    model = ClipAdapter(tiny_backbone, NAMES, reduction=reduction)
    assert (model.down.shape, model.up.shape) == ((hidden, 32), (32, hidden))
    for weights, fan_in in ((model.down, 32), (model.up, hidden)):
        bound = fan_in**-0.5
        assert 0.8 * bound < weights.abs().max() <= bound
        assert weights.mean().abs() < 0.3 * bound


def test_the_slopes_of_both_layers(tiny_backbone: Backbone) -> None:
    model = ClipAdapter(tiny_backbone.double(), NAMES, reduction=8, mix=0.6).double()
    features = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([2, 0, 1])

    def loss(down: Tensor, up: Tensor) -> Tensor:
        model._parameters["down"], model._parameters["up"] = down, up  # type: ignore[assignment]
        outputs = model.compare(EncodedImages(features, torch.zeros(3, 16, 64)), model.encode_text(), for_loss=True)
        return model.compute_loss(outputs, targets).total

    layers = [part.detach().clone().requires_grad_() for part in (model.down, model.up)]
    assert torch.autograd.gradcheck(loss, layers)


def test_the_layers_alone_are_learned_and_kept(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    before = {name: value.clone() for name, value in tiny_backbone.state_dict().items()}
    shots = ImageSet.from_path(class_folders)
    fitted = fit(tiny_backbone, shots, "clip-adapter", epochs=30, batch_size=18, reduction=8, mix=0.5)
    model, start = fitted.model, ClipAdapter(tiny_backbone, shots.classes, reduction=8)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {"down", "up"}
    assert not torch.equal(model.down, start.down)
    assert not torch.equal(model.up, start.up)
    assert torch.equal(model.class_vectors, start.class_vectors)
    assert all(torch.equal(value, before[name]) for name, value in tiny_backbone.state_dict().items())
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]

    other = model.for_new_classes(NAMES)
    assert isinstance(other, ClipAdapter)
    assert (other.config, other.class_names, other.training) == (model.config, tuple(NAMES), False)
    vectors = ZeroShot(tiny_backbone, NAMES).class_vectors
    image = torch.nn.functional.normalize(tiny_backbone.encode_image(images)[0], dim=-1)
    torch.testing.assert_close(other(images).global_logits, model.class_logits(image, vectors))
