from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.settings import Preset, TrainConfig
from support.prompt_models import NAMES, fit, said_by_open_clip, start, stir


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_one_context_without_dropout_is_all_that_is_learned(tiny_backbone: Backbone) -> None:
    settings, training = METHODS["coop"].settings_on(Preset(), {})
    model = start(tiny_backbone, "coop")
    assert model.config == settings
    assert model.global_prompts.shape == (1, 4, 32)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["global_prompts"]
    assert model.local_prompts is None
    assert model.local_projection is None
    assert (training.prompt_dropout, training.optimizer, training.weight_decay) == (0.0, "sgd", 0.0005)
    assert model.draw_prompts(8, training.prompt_dropout) is None


def test_logits_are_cosines_with_open_clips_text_of_the_context(tiny_backbone: Backbone, images: Tensor) -> None:
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


def test_it_is_sot_glp_without_the_local_branch(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
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


def test_new_classes_get_the_learned_context(tiny_backbone: Backbone, class_folders: Path, images: Tensor) -> None:
    trained = fit(tiny_backbone, ImageSet.from_path(class_folders), "coop").model
    other = trained.for_new_classes(NAMES)
    assert isinstance(other, SOTGLP)
    assert not other.training
    assert other.class_names == tuple(NAMES)
    assert torch.equal(other.global_prompts, trained.global_prompts)
    text = torch.stack([said_by_open_clip(tiny_backbone, trained.global_prompts[0], name) for name in NAMES])
    image = F.normalize(tiny_backbone.encode_image(images)[0], dim=-1)
    torch.testing.assert_close(other(images).global_logits, image @ text.T, rtol=1e-4, atol=1e-5)


def test_a_dataset_does_not_change_what_makes_it_coop() -> None:
    settings, training = METHODS["coop"].settings_on(
        Preset(training=TrainConfig(prompt_dropout=0.5, epochs=7)), {"template": "an image of {}"}
    )
    assert (settings.branches, settings.n_global_prompts, settings.template) == ("global", 1, "an image of {}")
    assert (training.prompt_dropout, training.epochs) == (0.0, 7)
