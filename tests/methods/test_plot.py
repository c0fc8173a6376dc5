from __future__ import annotations

from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone, SotglpError
from sotglp.images.image_set import ImageSet
from support.prompt_models import NAMES, fit, said_by_open_clip, start, stir


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_contexts_are_shared_and_learned_alone(tiny_backbone: Backbone) -> None:
    model = start(tiny_backbone, "plot")
    assert model.local_prompts.shape == (1, 4, 4, 32)
    assert model.local_projection is None
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["local_prompts"]
    assert start(tiny_backbone, "plot", [*NAMES, "sea"]).local_prompts.shape == (1, 4, 4, 32)


@torch.no_grad()
def test_scores_are_those_of_pots_plans_over_all_patches(tiny_backbone: Backbone, images: Tensor) -> None:
    model = start(tiny_backbone, "plot")
    stir(model.local_prompts)
    prompts = torch.stack(
        [torch.stack([said_by_open_clip(tiny_backbone, own, name) for own in model.local_prompts[0]]) for name in NAMES]
    )
    patches = F.normalize(tiny_backbone.project_patches(tiny_backbone.encode_image(images)[1]), dim=-1)
    similarity = torch.einsum("bpd,cnd->bcpn", patches, prompts).double().numpy()
    plan, support = model.transport(images)
    assert plan.shape == (5, 3, 16, 4)
    assert torch.equal(support.sort(dim=-1).values, torch.arange(16).expand(5, 3, 16))
    scores = np.empty((5, 3))
    for image in range(5):
        for name in range(3):
            kept = similarity[image, name]
            expected = ot.sinkhorn(
                np.full(16, 1 / 16),
                np.full(4, 1 / 4),
                1 - kept,
                reg=0.1,
                method="sinkhorn_log",
                numItermax=20000,
                stopThr=1e-13,
            )
            order = support[image, name].numpy()
            np.testing.assert_allclose(plan[image, name], expected[order], atol=1e-6)
            scores[image, name] = (expected * kept).sum()
    np.testing.assert_allclose(model(images).local_logits, scores, atol=1e-5)
    powers = np.exp(tiny_backbone.logit_scale * scores)
    np.testing.assert_allclose(model.predict_proba(images), powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)


def test_the_loss_is_the_cross_entropy_of_transport_alone(tiny_backbone: Backbone, images: Tensor) -> None:
    model, targets = start(tiny_backbone, "plot"), torch.tensor([0, 1, 2, 0, 1])
    loss = model.loss(images, targets)
    expected = F.cross_entropy(tiny_backbone.logit_scale * model(images).local_logits, targets)
    torch.testing.assert_close(loss.total, expected)
    assert loss.global_.item() == 0


def test_training_lowers_the_loss_and_leaves_the_template(tiny_backbone: Backbone, class_folders: Path) -> None:
    shots = ImageSet.from_path(class_folders)
    fitted = fit(tiny_backbone, shots, "plot", epochs=30, batch_size=18)
    before = start(tiny_backbone, "plot", shots.classes)
    assert torch.equal(fitted.model.global_prompts, before.global_prompts)
    assert not torch.equal(fitted.model.local_prompts, before.local_prompts)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_new_classes_get_the_learned_contexts(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    trained = fit(tiny_backbone, ImageSet.from_path(class_folders), "plot").model
    other = trained.for_new_classes(NAMES)
    assert (other.config, other.class_names) == (trained.config, tuple(NAMES))
    assert not other.training
    assert torch.equal(other.local_prompts, trained.local_prompts)
    expected = torch.stack(
        [
            torch.stack([said_by_open_clip(tiny_backbone, own, name) for own in trained.local_prompts[0]])
            for name in NAMES
        ]
    )
    torch.testing.assert_close(F.normalize(other.encode_text().local, dim=-1), expected, rtol=1e-4, atol=1e-5)
    assert other.predict_proba(images).shape == (5, 3)


def test_fewer_patches_may_be_asked_for_but_not_more(tiny_backbone: Backbone, images: Tensor) -> None:
    assert start(tiny_backbone, "plot", top_k=3).transport(images)[0].shape == (5, 3, 3, 4)
    with pytest.raises(SotglpError, match="top_k = 17 exceeds the 16 patches"):
        start(tiny_backbone, "plot", top_k=17)
