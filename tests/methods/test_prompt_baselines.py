from __future__ import annotations

from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.settings import Preset, TrainConfig
from support.prompt_models import NAMES, fit, said_by_open_clip, start, stir


def test_coop_one_context_without_dropout_is_all_that_is_learned(tiny_backbone: Backbone) -> None:
    settings, training = METHODS["coop"].settings_on(Preset(), {})
    model = start(tiny_backbone, "coop")
    assert model.config == settings
    assert model.global_prompts.shape == (1, 4, 32)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["global_prompts"]
    assert model.local_prompts is None
    assert model.local_projection is None
    assert (training.prompt_dropout, training.optimizer, training.weight_decay) == (0.0, "sgd", 0.0005)
    assert model.draw_prompts(8, training.prompt_dropout) is None


def test_coop_logits_are_cosines_with_open_clips_text_of_the_context(tiny_backbone: Backbone, images: Tensor) -> None:
    model = start(tiny_backbone, "coop")
    stir(model.global_prompts)
    text = torch.stack([said_by_open_clip(tiny_backbone, model.global_prompts[0], name) for name in NAMES])
    image = F.normalize(tiny_backbone.clip.encode_image(images), dim=-1)  # type: ignore[operator, union-attr]
    outputs, scale = model(images), tiny_backbone.logit_scale
    torch.testing.assert_close(outputs.global_logits, image @ text.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.predict_proba(images), (scale * image @ text.T).softmax(-1), rtol=1e-4, atol=1e-5)
    targets = torch.tensor([0, 1, 2, 0, 1])
    loss = model.loss(images, targets, prompt_dropout=0.0)
    torch.testing.assert_close(loss.total, F.cross_entropy(scale * image @ text.T, targets), rtol=1e-4, atol=1e-5)


def test_coop_is_sot_glp_without_the_local_branch(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    shots = ImageSet.from_path(class_folders)
    coop = fit(tiny_backbone, shots, "coop")
    whole = fit(tiny_backbone, shots, "sot-glp", n_global_prompts=1, prompt_dropout=0.0, weight_decay=0.0005)
    assert not torch.equal(coop.model.global_prompts, start(tiny_backbone, "coop").global_prompts)
    torch.testing.assert_close(coop.model.global_prompts, whole.model.global_prompts, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        coop.model(images).global_logits, whole.model(images).global_logits, rtol=1e-4, atol=1e-6
    )
    for ours, theirs in zip(coop.history, whole.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss_global"], rel=1e-4)


def test_coop_keeps_its_context_for_new_classes(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    trained = fit(tiny_backbone, ImageSet.from_path(class_folders), "coop").model
    other = trained.for_new_classes(NAMES)
    assert isinstance(other, SOTGLP)
    assert not other.training
    assert other.class_names == tuple(NAMES)
    assert torch.equal(other.global_prompts, trained.global_prompts)
    text = torch.stack([said_by_open_clip(tiny_backbone, trained.global_prompts[0], name) for name in NAMES])
    image = F.normalize(tiny_backbone.encode_image(images)[0], dim=-1)
    torch.testing.assert_close(other(images).global_logits, image @ text.T, rtol=1e-4, atol=1e-5)


def test_coop_a_dataset_does_not_change_what_makes_it_coop() -> None:
    settings, training = METHODS["coop"].settings_on(
        Preset(training=TrainConfig(prompt_dropout=0.5, epochs=7)), {"template": "an image of {}"}
    )
    assert (settings.branches, settings.n_global_prompts, settings.template) == ("global", 1, "an image of {}")
    assert (training.prompt_dropout, training.epochs) == (0.0, 7)


def test_plot_contexts_are_shared_and_learned_alone(tiny_backbone: Backbone) -> None:
    model = start(tiny_backbone, "plot")
    assert model.local_prompts.shape == (1, 4, 4, 32)
    assert model.local_projection is None
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["local_prompts"]
    assert start(tiny_backbone, "plot", [*NAMES, "sea"]).local_prompts.shape == (1, 4, 4, 32)


@torch.no_grad()
def test_plot_scores_are_those_of_pots_plans_over_all_patches(tiny_backbone: Backbone, images: Tensor) -> None:
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


def test_plot_the_loss_is_the_cross_entropy_of_transport_alone(tiny_backbone: Backbone, images: Tensor) -> None:
    model, targets = start(tiny_backbone, "plot"), torch.tensor([0, 1, 2, 0, 1])
    loss = model.loss(images, targets)
    expected = F.cross_entropy(tiny_backbone.logit_scale * model(images).local_logits, targets)
    torch.testing.assert_close(loss.total, expected)
    assert loss.global_.item() == 0


def test_plot_training_lowers_the_loss_and_leaves_the_template(tiny_backbone: Backbone, class_folders: Path) -> None:
    shots = ImageSet.from_path(class_folders)
    fitted = fit(tiny_backbone, shots, "plot", epochs=30, batch_size=18)
    before = start(tiny_backbone, "plot", shots.classes)
    assert torch.equal(fitted.model.global_prompts, before.global_prompts)
    assert not torch.equal(fitted.model.local_prompts, before.local_prompts)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_plot_keeps_its_contexts_for_new_classes(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
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


def test_plot_fewer_patches_may_be_asked_for_but_not_more(tiny_backbone: Backbone, images: Tensor) -> None:
    assert start(tiny_backbone, "plot", top_k=3).transport(images)[0].shape == (5, 3, 3, 4)
    with pytest.raises(SotglpError, match="top_k = 17 exceeds the 16 patches"):
        start(tiny_backbone, "plot", top_k=17)
