from __future__ import annotations

import math
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
from support.samples import preprocessed

NAMES = ["red_brick", "green leaf", "blue sea"]


@torch.no_grad()
def by_loops(model: SOTGLP, images: ImageSet) -> dict[str, float]:
    """The same numbers for one image after the other, pair by pair of prompts."""
    overlaps, shares, entropies = [], [], []
    for pixels in preprocessed(model.backbone, images).split(1):
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
    ("name", "settings"),
    [
        ("sot-glp", {}),
        ("sot-glp", {"relaxation": 0.05, "epsilon": 0.02}),
        ("sot-glp", {"matching": "uniform"}),
        ("sot-glp", {"matching": "per-prompt"}),
        ("sot-glp", {"top_k": None}),
        ("gallop", {"scale_step": 4}),
    ],
)
def test_use_by_predicted_class(tiny_backbone: Backbone, images: ImageSet, name: str, settings: dict[str, Any]) -> None:
    config = METHODS[name].config_class(**METHODS[name].settings | {"n_local_prompts": 3, "top_k": 4} | settings)
    model: Any = build_model(tiny_backbone, NAMES, config)
    torch.nn.init.normal_(model.local_prompts, generator=torch.Generator().manual_seed(3))
    assert prompt_use(model, images) == pytest.approx(by_loops(model, images), abs=1e-5)


@pytest.mark.parametrize("name", ["zero-shot", "coop", "linear-probe"])
def test_a_model_without_local_prompts_has_no_use_of_them(tiny_backbone: Backbone, images: ImageSet, name: str) -> None:
    method = METHODS[name]
    model: AdaptedModel = build_model(tiny_backbone, NAMES, method.config_class(**method.settings))
    assert prompt_use(model, images) is None


def test_many_images_are_sampled(tiny_backbone: Backbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(tiny_backbone, NAMES, ModelConfig(top_k=4))
    monkeypatch.setattr(module, "MAX_IMAGES", 3)
    indices = [0, (len(images) - 1) // 2, len(images) - 1]
    assert prompt_use(model, images) == prompt_use(model, images.take(indices))
