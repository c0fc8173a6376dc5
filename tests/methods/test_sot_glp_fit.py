from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.errors import OldClassesOnlyError
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.settings import ModelConfig, Preset, TrainConfig
from support.prompt_models import NAMES, fit, said_by_open_clip, start


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
    prompts = torch.stack(
        [said_by_open_clip(tiny_backbone, own[0], name) for own, name in zip(model.local_prompts, NAMES, strict=True)]
    )
    torch.testing.assert_close(model(images).local_logits, (patches @ prompts.T).mean(dim=1), rtol=1e-4, atol=1e-5)


def test_global_prompts_alone_decide_among_new_classes(
    tiny_backbone: Backbone, class_folders: Path, images: Tensor
) -> None:
    trained = fit(tiny_backbone, ImageSet.from_path(class_folders), "sot-glp").model
    other = trained.for_new_classes(NAMES)
    assert isinstance(other, SOTGLP)
    assert not other.training
    assert other.local_prompts is None
    assert other.local_projection is None
    assert torch.equal(other.global_prompts, trained.global_prompts)
    text = torch.stack(
        [torch.stack([said_by_open_clip(tiny_backbone, own, name) for own in trained.global_prompts]) for name in NAMES]
    )
    cosines = torch.einsum("bd,cmd->bcm", F.normalize(tiny_backbone.encode_image(images)[0], dim=-1), text)
    expected = (tiny_backbone.logit_scale * cosines.mean(dim=-1)).softmax(dim=-1).detach()
    torch.testing.assert_close(other.predict_proba(images), expected, rtol=1e-4, atol=1e-5)


def test_shared_local_contexts_go_to_new_classes_too(
    tiny_backbone: Backbone, class_folders: Path, images: Tensor
) -> None:
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
