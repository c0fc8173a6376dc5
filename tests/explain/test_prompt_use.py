from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sotglp import SOTGLP, Backbone
from sotglp.explain import prompt_use as module
from sotglp.explain.prompt_use import prompt_use
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import METHODS
from sotglp.methods.registry import build_model
from sotglp.settings import ModelConfig

NAMES = ["red_brick", "green leaf", "blue sea"]


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


@torch.no_grad()
def by_loops(model: SOTGLP, images: ImageSet) -> dict[str, float]:
    """The same numbers for one image after the other, pair by pair of prompts."""
    overlaps, shares, entropies = [], [], []
    for image in images.images:
        from PIL import Image

        pixels = model.backbone.preprocess(Image.open(image).convert("RGB"))[None]  # type: ignore[arg-type]
        predicted = int(model.predict_proba(pixels).argmax())
        plan, support = (part[0, predicted] for part in model.transport(pixels))  # (K, N), (K,) or (K, N)
        n_prompts = plan.shape[1]
        support = support[:, None].expand(-1, n_prompts) if support.ndim == 1 else support
        mass = torch.zeros(model.backbone.n_patches, n_prompts)
        for rank in range(len(plan)):
            for prompt in range(n_prompts):
                mass[support[rank, prompt], prompt] += plan[rank, prompt]
        own = mass / mass.sum(dim=0)
        pairs = [(a, b) for a in range(n_prompts) for b in range(a)]
        overlaps.append(sum(float(torch.minimum(own[:, a], own[:, b]).sum()) for a, b in pairs) / max(len(pairs), 1))
        shares.append(float(mass.sum(dim=0).max() / mass.sum()))
        parts = [float(value) for value in (plan / plan.sum()).flatten() if value > 0]
        entropies.append(-sum(part * math.log(part) for part in parts) / math.log(plan.numel()))
    return {
        "overlap": sum(overlaps) / len(overlaps),
        "dominance": sum(shares) / len(shares),
        "plan_entropy": sum(entropies) / len(entropies),
    }


@pytest.mark.parametrize(
    "settings",
    [{}, {"relaxation": 0.05, "epsilon": 0.02}, {"matching": "uniform"}, {"matching": "per-prompt"}, {"top_k": None}],
)
def test_the_use_of_prompts_is_that_of_the_predicted_class(
    tiny_backbone: Backbone, images: ImageSet, settings: dict[str, Any]
) -> None:
    model = SOTGLP(tiny_backbone, NAMES, n_local_prompts=3, **{"top_k": 4, **settings})
    assert model.local_prompts is not None
    torch.nn.init.normal_(model.local_prompts, generator=torch.Generator().manual_seed(3))
    found = prompt_use(model, images)
    assert found == pytest.approx(by_loops(model, images), abs=1e-5)


def test_gallop_is_looked_at_by_its_scales(tiny_backbone: Backbone, images: ImageSet) -> None:
    config = METHODS["gallop"].config_class(**{**METHODS["gallop"].settings, "top_k": 3, "scale_step": 4})
    model = build_model(tiny_backbone, NAMES, config)
    assert isinstance(model, SOTGLP)
    assert prompt_use(model, images) == pytest.approx(by_loops(model, images), abs=1e-5)


@pytest.mark.parametrize("name", ["zero-shot", "coop", "linear-probe"])
def test_a_model_without_local_prompts_has_no_use_of_them(tiny_backbone: Backbone, images: ImageSet, name: str) -> None:
    method = METHODS[name]
    model: AdaptedModel = build_model(tiny_backbone, NAMES, method.config_class(**method.settings))
    assert prompt_use(model, images) is None


def test_of_many_images_some_are_looked_at(
    tiny_backbone: Backbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(tiny_backbone, NAMES, ModelConfig(top_k=4))
    monkeypatch.setattr(module, "MAX_IMAGES", 3)
    indices = [0, (len(images) - 1) // 2, len(images) - 1]
    assert prompt_use(model, images) == prompt_use(model, images.take(indices))
