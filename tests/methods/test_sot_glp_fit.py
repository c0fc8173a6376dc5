from __future__ import annotations

from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import Backbone
from sotglp.errors import OldClassesOnlyError
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.settings import ModelConfig, Preset, TrainConfig
from support.prompt_models import NAMES, fit, start, stir, text_by_open_clip


def test_it_is_the_published_model() -> None:
    assert METHODS["sot-glp"].settings_on(Preset(), {}) == (ModelConfig(), TrainConfig())
    free = METHODS["sot-glp-projection-free"].settings_on(Preset(), {})
    assert free == (ModelConfig(learn_projection=False), TrainConfig())


def test_the_projection_free_one_learns_prompts_alone(tiny_backbone: Backbone, class_folders: Path) -> None:
    shots = ImageSet.from_path(class_folders)
    free, whole = (fit(tiny_backbone, shots, name).model for name in ("sot-glp-projection-free", "sot-glp"))
    assert free.local_projection is None
    assert [name for name, value in free.named_parameters() if value.requires_grad] == [
        "global_prompts",
        "local_prompts",
    ]
    assert not torch.equal(whole.local_projection, torch.eye(64))


def test_one_prompt_on_all_patches_is_the_mean_of_their_cosines(tiny_backbone: Backbone, images: Tensor) -> None:
    model = start(tiny_backbone, "sot-glp-projection-free", n_local_prompts=1, top_k=None)
    patches = F.normalize(tiny_backbone.project_patches(tiny_backbone.encode_image(images)[1]), dim=-1)
    prompts = F.normalize(text_by_open_clip(tiny_backbone, model.local_prompts)[:, 0], dim=-1)
    torch.testing.assert_close(model(images).local_logits, (patches @ prompts.T).mean(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["coop", "locoop", "sot-glp"])
def test_global_prompts_know_new_names(tiny_backbone: Backbone, class_folders: Path, images: Tensor, name: str) -> None:
    trained = fit(tiny_backbone, ImageSet.from_path(class_folders), name).model
    other = trained.for_new_classes(NAMES)
    assert type(other) is type(trained)
    assert (other.class_names, other.training) == (tuple(NAMES), False)
    assert other.config == trained.config.model_copy(update={"branches": "global"})
    assert other.local_prompts is None
    assert other.local_projection is None
    assert torch.equal(other.global_prompts, trained.global_prompts)
    text = F.normalize(text_by_open_clip(tiny_backbone, trained.global_prompts), dim=-1)
    cosines = torch.einsum("bd,cmd->bcm", F.normalize(tiny_backbone.encode_image(images)[0], dim=-1), text)
    torch.testing.assert_close(other(images).global_logits, cosines.mean(dim=-1), rtol=1e-4, atol=1e-5)
    expected = (tiny_backbone.logit_scale * cosines.mean(dim=-1)).softmax(dim=-1).detach()
    torch.testing.assert_close(other.predict_proba(images), expected, rtol=1e-4, atol=1e-5)


def test_new_classes_get_shared_contexts(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    trained = fit(tiny_backbone, ImageSet.from_path(class_folders), "sot-glp", local_contexts="shared").model
    other = trained.for_new_classes(NAMES)
    for name in trained.kept:
        assert torch.equal(getattr(other, name), getattr(trained, name))
    outputs = other(images)
    expected = (tiny_backbone.logit_scale * (outputs.global_logits + outputs.local_logits) / 2).softmax(dim=-1)
    torch.testing.assert_close(other.predict_proba(images), expected.detach())


def test_local_contexts_alone_say_nothing_of_new_classes(tiny_backbone: Backbone) -> None:
    with pytest.raises(OldClassesOnlyError, match="a model of kind sot-glp only predicts"):
        start(tiny_backbone, "sot-glp", branches="local").for_new_classes(["dog", "sea"])


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
    text = F.normalize(text_by_open_clip(tiny_backbone, model.global_prompts)[:, 0], dim=-1)
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
    prompts = F.normalize(text_by_open_clip(tiny_backbone, model.local_prompts), dim=-1)
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


def test_plot_learns_contexts_for_any_classes(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    shots = ImageSet.from_path(class_folders)
    fitted = fit(tiny_backbone, shots, "plot", epochs=30, batch_size=18)
    trained, before = fitted.model, start(tiny_backbone, "plot", shots.classes)
    assert torch.equal(trained.global_prompts, before.global_prompts)
    assert not torch.equal(trained.local_prompts, before.local_prompts)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    other = trained.for_new_classes(NAMES)
    assert (other.config, other.class_names, other.training) == (trained.config, tuple(NAMES), False)
    assert torch.equal(other.local_prompts, trained.local_prompts)
    expected = text_by_open_clip(tiny_backbone, trained.local_prompts)
    torch.testing.assert_close(other.encode_text().local, expected, rtol=1e-4, atol=1e-4)
    assert other.predict_proba(images).shape == (5, 3)
