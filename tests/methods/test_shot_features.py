from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import Outputs
from sotglp.methods.gallop import GalLoP
from sotglp.methods.method import find_method
from sotglp.methods.shot_features import build_shot_memory, region_features
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import InferenceConfig


def compared(model: SOTGLP | ZeroShot) -> tuple[EncodedImages, Outputs]:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoded = EncodedImages(*model.backbone.encode_image(images))
    return encoded, model.compare(encoded, model.encode_text())


def unit_patches(backbone: Backbone, encoded: EncodedImages) -> torch.Tensor:
    return F.normalize(backbone.project_patches(encoded.patch_tokens), dim=-1)


@pytest.mark.parametrize("matching", ["transport", "uniform", "per-prompt"])
@torch.no_grad()
def test_patches_are_weighed_by_the_plan(tiny_backbone: Backbone, matching: str) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog"], top_k=3, n_local_prompts=2, matching=matching)  # type: ignore[arg-type]
    encoded, outputs = compared(model)
    classes = torch.tensor([1, 0, 1])
    patches = unit_patches(tiny_backbone, encoded)
    expected = torch.zeros(3, tiny_backbone.embed_dim)
    for image, own in enumerate(classes.tolist()):
        for place in range(3):
            for prompt in range(2):
                support = outputs.support[image, own, place]
                patch = support if support.ndim == 0 else support[prompt]
                expected[image] += outputs.plan[image, own, place, prompt] * patches[image, patch]
    torch.testing.assert_close(region_features(model, encoded, outputs, classes), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_without_a_plan_all_patches_count_alike(tiny_backbone: Backbone) -> None:
    model = ZeroShot(tiny_backbone, ["cat", "dog"])
    encoded, outputs = compared(model)
    found = region_features(model, encoded, outputs, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(found, unit_patches(tiny_backbone, encoded).mean(dim=1))


@torch.no_grad()
def test_gallop_weighs_by_what_its_prompts_keep(tiny_backbone: Backbone) -> None:
    settings = {**find_method("gallop").settings, "top_k": 2, "scale_step": 1, "n_local_prompts": 2}
    model = GalLoP(tiny_backbone, ["cat", "dog"], **settings)
    encoded, outputs = compared(model)
    assert outputs.plan.sum(dim=(-2, -1)) == pytest.approx(1)
    patches = unit_patches(tiny_backbone, encoded)
    kept = outputs.support[0, 1]  # 3 places for 2 prompts, of which the first keeps 2 patches
    expected = (patches[0, kept[:2, 0]].sum(dim=0) / 2 + patches[0, kept[:, 1]].sum(dim=0) / 3) / 2
    found = region_features(model, encoded, outputs, torch.tensor([1, 1, 1]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def shots(n: int = 5) -> tuple[torch.Tensor, ImageSet]:
    images = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return images, ImageSet.from_items(images, [("dog", "cat")[place % 2] for place in range(n)])


@torch.no_grad()
def test_the_memory_holds_features_and_regions_of_the_own_classes(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog"], top_k=3)
    images, image_set = shots()
    memory = build_shot_memory(model, image_set, InferenceConfig(batch_size=2))
    features, patches = tiny_backbone.encode_image(images)
    encoded = EncodedImages(features, patches.half())
    targets = torch.tensor([1, 0, 1, 0, 1])
    assert torch.equal(memory.classes, targets)
    torch.testing.assert_close(memory.features, F.normalize(features, dim=-1))
    # Patches come in half precision, as a cache keeps them.
    outputs = model.compare(encoded, model.encode_text())
    regions = region_features(model, encoded, outputs, targets)
    torch.testing.assert_close(memory.regions, F.normalize(regions, dim=-1), rtol=1e-5, atol=1e-6)
