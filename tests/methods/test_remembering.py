from __future__ import annotations

import torch
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.features.encode import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import METHODS
from sotglp.methods.registry import KINDS
from sotglp.methods.shot_features import build_shot_memory, region_features
from sotglp.settings import InferenceConfig


def shots(n: int = 5) -> tuple[torch.Tensor, ImageSet]:
    images = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return images, ImageSet.from_items(images, [("dog", "cat")[place % 2] for place in range(n)])


@torch.no_grad()
def test_features_and_regions_of_the_own_classes_are_remembered(tiny_backbone: Backbone) -> None:
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


def test_every_method_remembers(tiny_backbone: Backbone) -> None:
    _, image_set = shots()
    for method in METHODS.values():
        settings = dict(method.settings) | ({"top_k": 3} if "top_k" in method.config_class.model_fields else {})
        memory = build_shot_memory(
            KINDS[method.kind](tiny_backbone, ["cat", "dog"], **settings), image_set, InferenceConfig()
        )
        assert memory.regions.isfinite().all(), method.name
        assert memory.features.shape == (5, tiny_backbone.embed_dim)
