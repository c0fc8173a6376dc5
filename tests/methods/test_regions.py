from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.methods.method import find_method
from sotglp.methods.regions import region_features
from sotglp.methods.zero_shot import ZeroShot


def compared(model: SOTGLP | ZeroShot) -> tuple[torch.Tensor, ...]:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features, patches = model.backbone.encode_image(images)
    return patches, model.compare(features, patches, model.encode_text())


def unit_patches(backbone: Backbone, patch_tokens: torch.Tensor) -> torch.Tensor:
    return F.normalize(backbone.project_patches(patch_tokens), dim=-1)


@pytest.mark.parametrize("matching", ["transport", "uniform", "per-prompt"])
@torch.no_grad()
def test_patches_are_weighed_by_the_plan(tiny_backbone: Backbone, matching: str) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog"], top_k=3, n_local_prompts=2, matching=matching)  # type: ignore[arg-type]
    patch_tokens, outputs = compared(model)
    classes = torch.tensor([1, 0, 1])
    patches = unit_patches(tiny_backbone, patch_tokens)
    expected = torch.zeros(3, tiny_backbone.embed_dim)
    for image, own in enumerate(classes.tolist()):
        for place in range(3):
            for prompt in range(2):
                support = outputs.support[image, own, place]
                patch = support if support.ndim == 0 else support[prompt]
                expected[image] += outputs.plan[image, own, place, prompt] * patches[image, patch]
    torch.testing.assert_close(region_features(model, patch_tokens, outputs, classes), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_without_a_plan_all_patches_count_alike(tiny_backbone: Backbone) -> None:
    model = ZeroShot(tiny_backbone, ["cat", "dog"])
    patch_tokens, outputs = compared(model)
    found = region_features(model, patch_tokens, outputs, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(found, unit_patches(tiny_backbone, patch_tokens).mean(dim=1))


@torch.no_grad()
def test_gallop_weighs_by_what_its_prompts_keep(tiny_backbone: Backbone) -> None:
    settings = {**find_method("gallop").settings, "top_k": 2, "scale_step": 1, "n_local_prompts": 2}
    model = find_method("gallop").model(tiny_backbone, ["cat", "dog"], **settings)
    patch_tokens, outputs = compared(model)  # type: ignore[arg-type]
    assert outputs.plan.sum(dim=(-2, -1)) == pytest.approx(1)
    patches = unit_patches(tiny_backbone, patch_tokens)
    kept = outputs.support[0, 1]  # 3 places for 2 prompts, of which the first keeps 2 patches
    expected = (patches[0, kept[:2, 0]].sum(dim=0) / 2 + patches[0, kept[:, 1]].sum(dim=0) / 3) / 2
    found = region_features(model, patch_tokens, outputs, torch.tensor([1, 1, 1]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
