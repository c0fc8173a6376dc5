from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.features.rows import EncodedImages
from sotglp.scoring import ood
from support.prompt_models import stir
from support.towers import small_convolutional, small_resnet

NAMES = ["cat", "golden retriever", "polka dot texture"]


TARGETS = torch.tensor([0, 1, 2, 0, 1])


def test_shapes_and_start(tiny_backbone: Backbone, images: Tensor) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=2, n_local_prompts=5, top_k=7)
    assert model.global_prompts.shape == (2, 4, 32)
    assert model.local_prompts.shape == (3, 5, 4, 32)
    assert torch.equal(model.global_prompts[0], model.global_prompts[1])
    assert model.local_projection is not None
    assert torch.equal(model.local_projection, torch.eye(64))
    plan, support = model.transport(images)
    assert (plan.shape, support.shape) == ((5, 3, 7, 5), (5, 3, 7))
    torch.testing.assert_close(plan.sum(dim=-1), torch.full((5, 3, 7), 1 / 7), rtol=0, atol=1e-6)
    torch.testing.assert_close(plan.sum(dim=-2), torch.full((5, 3, 5), 1 / 5), rtol=0, atol=1e-6)
    text = model.encode_text()
    assert (text.global_.shape, text.local.shape) == ((3, 2, 32), (3, 5, 32))
    assert model.predict_proba(images).sum(dim=-1).tolist() == pytest.approx([1] * 5)


def test_starting_features_of_global_prompts_are_zero_shot_text(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, NAMES)
    expected = tiny_backbone.clip.encode_text(open_clip.tokenize([f"a photo of a {name}" for name in NAMES]))
    torch.testing.assert_close(model.encode_text().global_[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_order_of_classes_and_images_changes_nothing_else(tiny_backbone: Backbone, images: Tensor) -> None:
    model = SOTGLP(tiny_backbone, NAMES)
    turned = SOTGLP(tiny_backbone, NAMES[::-1])
    with torch.no_grad():
        turned.local_prompts.copy_(model.local_prompts.flip(0))
    for one, other in zip(model(images)[:2], turned(images)[:2], strict=True):
        torch.testing.assert_close(one, other.flip(1), rtol=1e-5, atol=1e-6)
    # Each image is judged alone, too.
    torch.testing.assert_close(model(images)[1][3:4], model(images[3:4])[1], rtol=1e-5, atol=1e-6)


def test_prompt_dropout_averages_drawn_prompts_for_each_image(tiny_backbone: Backbone, images: Tensor) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=4)
    stir(model.global_prompts, by=1)
    text = model.encode_text()
    features = EncodedImages(*tiny_backbone.encode_image(images))
    each = torch.einsum("bd,cmd->bcm", F.normalize(features[0], dim=-1), F.normalize(text.global_, dim=-1))
    # int(0.5 * 4) prompts of 4 are left out, so 2 are drawn, with replacement.
    drawn = model.draw_prompts(len(images), 0.5, torch.Generator().manual_seed(2))
    found = model.compare(features, text, drawn_prompts=drawn)
    pairs = torch.stack([(each[..., i] + each[..., j]) / 2 for i in range(4) for j in range(4)], dim=-1)
    matches = (found.global_logits.unsqueeze(-1) - pairs).abs().amax(dim=1) < 1e-6
    assert matches.any(dim=-1).all()
    again = model.draw_prompts(len(images), 0.5, torch.Generator().manual_seed(2))
    assert drawn is not None
    assert torch.equal(drawn, again)
    assert model.draw_prompts(len(images), 0.0) is None


def test_every_prompt_is_drawn_about_equally_often(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=3)
    drawn = model.draw_prompts(3000, 0.75, torch.Generator().manual_seed(0))
    assert torch.bincount(drawn.flatten(), minlength=3).tolist() == pytest.approx([1000] * 3, abs=100)


@pytest.mark.parametrize("contexts", ["class", "shared"])
def test_global_prompts_alone(tiny_backbone: Backbone, images: Tensor, contexts: Any) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=2, branches="global", local_contexts=contexts)
    assert model.local_prompts is None
    assert model.local_projection is None
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["global_prompts"]
    whole = SOTGLP(tiny_backbone, NAMES, n_global_prompts=2)
    outputs, scale = model(images), tiny_backbone.logit_scale
    torch.testing.assert_close(outputs.global_logits, whole(images).global_logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.predict_proba(images), torch.softmax(scale * outputs.global_logits, dim=-1))
    loss = model.loss(images, TARGETS, prompt_dropout=0.0)
    assert loss.local.item() == 0
    torch.testing.assert_close(loss.total, F.cross_entropy(scale * outputs.global_logits, TARGETS))
    loss.total.backward()
    assert model.global_prompts.grad.abs().max() > 0


def test_global_prompts_look_at_patches_for_ood_scores(tiny_backbone: Backbone, images: Tensor) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=2, branches="global", template="a photo of {} seen at sea")
    stir(model.global_prompts, by=0.02)
    text, outputs = model.encode_text(), model(images)
    assert torch.equal(text.local, text.global_)
    assert text.global_.requires_grad
    assert not text.local.requires_grad
    patches = F.normalize(tiny_backbone.project_patches(tiny_backbone.encode_image(images)[1]), dim=-1)
    expected = torch.einsum("bpd,cmd->bpcm", patches, F.normalize(text.global_, dim=-1)).mean(dim=-1)
    torch.testing.assert_close(outputs.patch_logits, expected, rtol=1e-5, atol=1e-6)
    assert outputs.local_logits.isfinite().all()
    assert ood.score(model, images).isfinite().all()
    plan, support = model.transport(images)
    assert (plan.shape, support.shape) == ((5, 3, 10, 2), (5, 3, 10))
    # One class less, one class more: chosen classes are the same ones.
    torch.testing.assert_close(model.encode_text([2, 0]).local, text.local[[2, 0]], rtol=1e-5, atol=1e-6)


def test_global_loss_is_not_matched(tiny_backbone: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SOTGLP(tiny_backbone, NAMES, branches="global")
    monkeypatch.setattr("sotglp.methods.sot_glp.match_patches", None)
    outputs = model.loss(images, TARGETS).outputs
    # NaN, so that nobody takes what was not computed for a cosine.
    assert (outputs.local_logits.shape, outputs.patch_logits.shape) == ((5, 3), (5, 16, 3))
    assert outputs.local_logits.isnan().all()
    assert outputs.patch_logits.isnan().all()


@pytest.mark.parametrize("contexts", ["class", "shared"])
def test_local_prompts_alone(tiny_backbone: Backbone, images: Tensor, contexts: Any) -> None:
    model = SOTGLP(tiny_backbone, NAMES, branches="local", local_contexts=contexts)
    whole = SOTGLP(tiny_backbone, NAMES, local_contexts=contexts)
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learned == {"local_prompts", "local_projection"}
    outputs, text, scale = model(images), model.encode_text(), tiny_backbone.logit_scale
    for ours, theirs in zip(outputs[:-1], whole(images)[:-1], strict=True):
        assert torch.equal(ours, theirs)
    assert (text.local.requires_grad, text.global_.requires_grad) == (True, False)
    torch.testing.assert_close(model.predict_proba(images), torch.softmax(scale * outputs.local_logits, dim=-1))
    loss = model.loss(images, TARGETS)
    assert loss.global_.item() == 0
    torch.testing.assert_close(loss.total, F.cross_entropy(scale * outputs.local_logits, TARGETS))
    loss.total.backward()
    assert model.global_prompts.grad is None
    assert model.local_prompts.grad.abs().max() > 0


def test_shared_local_contexts_are_those_of_every_class(tiny_backbone: Backbone, images: Tensor) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_global_prompts=2, local_contexts="shared")
    own = SOTGLP(tiny_backbone, NAMES, n_global_prompts=2)
    assert model.local_prompts.shape == (1, 4, 4, 32)
    assert not torch.equal(model.local_prompts[0, 0], model.local_prompts[0, 1])
    with torch.no_grad():
        own.local_prompts.copy_(model.local_prompts.expand_as(own.local_prompts))
    for found, expected in zip(model.encode_text(), own.encode_text(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for found, expected in zip(model(images), own(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    chosen = model.encode_text([2, 0])
    torch.testing.assert_close(chosen.local, model.encode_text().local[[2, 0]], rtol=1e-5, atol=1e-5)
    # Each class pulls at the same contexts: their slope is the sum of what it would be at contexts of its own.
    for one in (model, own):
        one.loss(images, TARGETS, prompt_dropout=0.0).total.backward()
    assert model.local_prompts.grad is not None
    summed = own.local_prompts.grad.sum(dim=0, keepdim=True)
    assert (model.local_prompts.grad - summed).norm() < 1e-4 * summed.norm()
    assert model.global_prompts.grad is not None
    assert (model.global_prompts.grad - own.global_prompts.grad).norm() < 1e-4 * own.global_prompts.grad.norm()


@pytest.mark.parametrize("make", [small_resnet, small_convolutional])
def test_convolutional_backbones_end_to_end(make: Callable[[], nn.Module]) -> None:
    backbone = Backbone.from_open_clip(make())
    model = SOTGLP(backbone, NAMES, top_k=3)
    loss = model.loss(torch.randn(2, 3, *backbone.image_size), torch.tensor([0, 2]))
    loss.total.backward()
    assert model.local_projection.shape == (backbone.embed_dim, backbone.embed_dim)
    for parameter in (model.global_prompts, model.local_prompts, model.local_projection):
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("branches", ["global", "local"])
def test_one_branch_is_trained_and_both_predict(tiny_backbone: Backbone, images: Tensor, branches: Any) -> None:
    model = SOTGLP(tiny_backbone, NAMES, branches=branches, predict_with="both")
    alone = SOTGLP(tiny_backbone, NAMES, branches=branches)
    outputs, scale = model(images), tiny_backbone.logit_scale
    mean = (outputs.global_logits + outputs.local_logits) / 2
    torch.testing.assert_close(model.logits(outputs), scale * mean)
    loss, expected = (one.loss(images, TARGETS, prompt_dropout=0.0) for one in (model, alone))
    assert torch.equal(loss.total, expected.total)
    assert model.logits(loss.outputs).isfinite().all()  # the training accuracy is that of the prediction
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in alone.named_parameters()}
    new = SOTGLP(tiny_backbone, NAMES, predict_with="both").for_new_classes(["new", "other"])
    assert new(images).global_logits.shape == (5, 2)
    torch.testing.assert_close(new.logits(new(images)), scale * new(images).global_logits)
