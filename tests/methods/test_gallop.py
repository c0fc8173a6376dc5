from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.gallop import GalLoP
from sotglp.transport.plans import patch_mass
from support.prompt_models import NAMES, fit, start, stir, text_by_open_clip

TARGETS = torch.tensor([0, 1, 2, 0, 1])


def stirred(backbone: Backbone, **settings: Any) -> GalLoP:
    model: GalLoP = start(backbone, "gallop", **{"top_k": 3, "scale_step": 4, **settings})
    stir(model.global_prompts, model.local_prompts, model.local_projection)
    return model


def plain(model: GalLoP, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Global cosines (B, C), scores of each local prompt (B, C, N) and of each patch (B, P, C), as in the paper."""
    backbone, projection = model.backbone, model.local_projection
    assert model.local_prompts is not None
    features, tokens = backbone.encode_image(images)
    of_global, of_local = (
        F.normalize(text_by_open_clip(backbone, prompts, model.class_names), dim=-1)
        for prompts in (model.global_prompts, model.local_prompts)
    )
    patches = F.normalize(backbone.project_patches(tokens @ projection.T), dim=-1)
    similarity = torch.einsum("bpd,cnd->bcnp", patches, of_local)
    kept = [model.top_k + place * model.config.scale_step for place in range(similarity.shape[2])]
    scores = [
        similarity[:, :, place].sort(dim=-1, descending=True).values[..., :size].mean(dim=-1)
        for place, size in enumerate(kept)
    ]
    cosines = torch.einsum("bd,cmd->bcm", F.normalize(features, dim=-1), of_global)
    return cosines.mean(dim=-1), torch.stack(scores, dim=-1), similarity.mean(dim=2).transpose(1, 2)


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({"top_k": 3, "scale_step": 4}, [3, 7, 11, 15]),
        ({}, [10, 16, 16, 16]),
        ({"top_k": 3, "scale_step": 5, "n_local_prompts": 5}, [3, 8, 13, 16, 16]),
        ({"top_k": 5, "scale_step": 0}, [5, 5, 5, 5]),
        ({"top_k": None}, [16, 16, 16, 16]),
    ],
    ids=str,
)
def test_scales_are_cut(tiny_backbone: Backbone, images: Tensor, settings: dict[str, Any], scales: list[int]) -> None:
    model = start(tiny_backbone, "gallop", **settings)
    assert model.scales == scales
    if not settings:
        assert (model.global_prompts.shape, model.local_prompts.shape) == ((4, 4, 32), (1, 4, 4, 32))
        assert (model.local_projection.shape, model.config.scale_step) == ((64, 64), 10)
    mass = patch_mass(*model.transport(images), n_patches=16)
    assert (mass > 0).sum(dim=-2).unique(dim=0).unique(dim=1).flatten().tolist() == scales


def test_each_prompt_has_the_mean_of_its_own_best_patches(tiny_backbone: Backbone, images: Tensor) -> None:
    model = stirred(tiny_backbone)
    outputs, (of_global, scores, of_patches) = model(images), plain(model, images)
    torch.testing.assert_close(outputs.global_logits, of_global, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.prompt_logits, scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.local_logits, scores.mean(dim=-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.patch_logits, of_patches, rtol=1e-4, atol=1e-5)
    expected = (tiny_backbone.logit_scale * (of_global + scores.mean(dim=-1)) / 2).softmax(dim=-1)
    torch.testing.assert_close(model.predict_proba(images), expected.detach(), rtol=1e-4, atol=1e-5)


def test_every_prompt_has_a_loss_of_its_own(tiny_backbone: Backbone, images: Tensor) -> None:
    model = stirred(tiny_backbone.double()).double()
    loss = model.loss(images.double(), TARGETS, prompt_dropout=0.0)
    of_global, scores, _ = plain(model, images.double())
    scale = tiny_backbone.logit_scale
    expected_global = F.cross_entropy(scale * of_global, TARGETS)
    expected_local = sum(F.cross_entropy(scale * scores[..., place], TARGETS) for place in range(4)) / 4
    torch.testing.assert_close(loss.global_, expected_global)
    torch.testing.assert_close(loss.local, expected_local)
    torch.testing.assert_close(loss.total, expected_global + expected_local)
    learned = [model.global_prompts, model.local_prompts, model.local_projection]
    for found, slope in zip(
        torch.autograd.grad(loss.total, learned),
        torch.autograd.grad(expected_global + expected_local, learned),
        strict=True,
    ):
        assert (found - slope).norm() < 1e-6 * slope.norm()


def test_without_steps_it_matches_like_sot_glp_per_prompt(tiny_backbone: Backbone, images: Tensor) -> None:
    model = stirred(tiny_backbone, top_k=5, scale_step=0)
    other = SOTGLP(
        tiny_backbone,
        NAMES,
        n_global_prompts=4,
        top_k=5,
        matching="per-prompt",
        local_factor="1",
        local_contexts="shared",
    )
    other.restore({name: getattr(model, name) for name in model.kept})
    for found, expected in zip(model(images), other(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for found, expected in zip(model.transport(images), other.transport(images), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_score_is_the_plan_times_the_similarity(tiny_backbone: Backbone, images: Tensor) -> None:
    model = stirred(tiny_backbone)
    encoded, text = EncodedImages(*tiny_backbone.encode_image(images)), model.encode_text().local
    match = model.match(encoded, text)
    assert match.plan.shape == match.support.shape == (5, 3, 15, 4)
    patches = F.normalize(tiny_backbone.project_patches(encoded.patch_tokens @ model.local_projection.T), dim=-1)  # type: ignore[union-attr]
    similarity = torch.einsum("bpd,cnd->bcpn", patches, F.normalize(text, dim=-1))
    scores = (match.plan * similarity.gather(2, match.support)).sum(dim=(2, 3))
    torch.testing.assert_close(match.scores, scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(match.scores, model(images).local_logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(match.plan.sum(dim=2), torch.full((5, 3, 4), 1 / 4))


def test_prompt_dropout_is_for_global_prompts(tiny_backbone: Backbone, images: Tensor) -> None:
    model = stirred(tiny_backbone)
    drawn = torch.tensor([[0], [1], [2], [3], [0]])
    found = model.compare(EncodedImages(*tiny_backbone.encode_image(images)), model.encode_text(), drawn_prompts=drawn)
    text = F.normalize(model.encode_text().global_, dim=-1)
    image = F.normalize(tiny_backbone.encode_image(images)[0], dim=-1)
    expected = torch.einsum("bd,cbd->bc", image, text[:, drawn[:, 0]])
    torch.testing.assert_close(found.global_logits, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.prompt_logits, model(images).prompt_logits)


def test_parts_of_a_batch_add_up(tiny_backbone: Backbone, class_folders: Path) -> None:
    shots = ImageSet.from_path(class_folders)
    whole, parts = (fit(tiny_backbone, shots, "gallop", top_k=3, micro_batch=size).model for size in (None, 4))
    torch.testing.assert_close(whole.local_prompts, parts.local_prompts, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.local_projection, parts.local_projection, rtol=1e-4, atol=1e-6)


def test_training_lowers_both_losses_and_is_kept(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    shots = ImageSet.from_path(class_folders)
    settings = {"epochs": 25, "batch_size": 18, "prompt_dropout": 0, "top_k": 3, "scale_step": 4}
    fitted = fit(tiny_backbone, shots, "gallop", **settings)
    trained, history = fitted.model, fitted.history
    for part in ("loss_global", "loss_local"):
        assert history[-1][part] < history[0][part]
    other = trained.for_new_classes(NAMES)
    assert isinstance(other, GalLoP)
    assert (other.config, other.class_names) == (trained.config, tuple(NAMES))
    for name in trained.kept:
        assert torch.equal(getattr(other, name), getattr(trained, name))
    of_global, scores, _ = plain(other, images)
    torch.testing.assert_close(other(images).global_logits, of_global, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other(images).prompt_logits, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_global_prompts", [1, 6])
def test_global_prompts_alone_know_new_classes(tiny_backbone: Backbone, images: Tensor, n_global_prompts: int) -> None:
    model = stirred(tiny_backbone, local_contexts="class", n_global_prompts=n_global_prompts)
    other = model.for_new_classes(["dog", "sea"])
    assert isinstance(other, GalLoP)
    outputs = other(images)
    assert outputs.prompt_logits.shape == (5, 2, n_global_prompts)  # type: ignore[attr-defined]
    expected = (tiny_backbone.logit_scale * outputs.global_logits).softmax(dim=-1).detach()
    torch.testing.assert_close(other.predict_proba(images), expected)
    assert torch.equal(other.global_prompts, model.global_prompts)


@pytest.mark.parametrize("branch", ["global", "local"])
def test_a_branch_alone_has_its_own_loss(tiny_backbone: Backbone, images: Tensor, branch: str) -> None:
    both, alone = stirred(tiny_backbone), stirred(tiny_backbone, branches=branch)
    whole, loss = (model.loss(images, TARGETS, prompt_dropout=0.0) for model in (both, alone))
    expected = {"global": (whole.global_, torch.tensor(0.0)), "local": (torch.tensor(0.0), whole.local)}[branch]
    torch.testing.assert_close((loss.global_, loss.local), expected)
    torch.testing.assert_close(loss.total, sum(expected))
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in alone.learned)


def test_outputs_of_another_model_are_not_judged(tiny_backbone: Backbone, images: Tensor) -> None:
    model = stirred(tiny_backbone)
    foreign = SOTGLP(tiny_backbone, NAMES)(images)
    with pytest.raises(SotglpError, match="needs the outputs of its own compare"):
        model.compute_loss(foreign, TARGETS)
