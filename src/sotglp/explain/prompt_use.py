"""Measure whether the local prompts of a model match different patches or the same ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.prompt_model import PromptModel
from sotglp.methods.text_features import TextFeatures
from sotglp.settings import InferenceConfig
from sotglp.transport.plans import class_mass, dominance, plan_entropy, prompt_overlap

MAX_IMAGES = 1000


class PromptUse(TypedDict):
    """Means over images, each from 0 to 1; see :mod:`sotglp.transport.plans`."""

    overlap: float
    dominance: float
    plan_entropy: float


@torch.no_grad()
def prompt_use(
    model: AdaptedModel,
    images: ImageSet,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    *,
    text: TextFeatures | None = None,
    cache_dir: Path | None = None,
) -> PromptUse | None:
    """Measure how the local prompts of the predicted class share an image; None for a model without local prompts.

    Of more than ``MAX_IMAGES`` images, that number at equal intervals are used. ``text`` is from ``model.encode_text``.
    """
    if not isinstance(model, PromptModel) or model.local_prompts is None:
        return None
    if len(images) > MAX_IMAGES:
        images = images.take(np.linspace(0, len(images) - 1, MAX_IMAGES).astype(np.int64))
    images = replace(images, ranges=model.value_ranges)
    model.eval()
    if text is None:
        text = model.encode_text()
    rows = []
    for _, encoded in encode_images(model.backbone, images, inference, cache_dir):
        outputs = model.compare(encoded.to(model.backbone.device), text)
        predicted = model.probabilities(outputs).argmax(dim=-1)
        assert outputs.plan is not None
        assert outputs.support is not None
        plan = outputs.plan[torch.arange(len(predicted), device=predicted.device), predicted]
        mass = class_mass(outputs.plan, outputs.support, predicted, model.backbone.n_patches)
        rows.append(torch.stack([prompt_overlap(mass), dominance(mass), plan_entropy(plan)]))
    overlap, most, entropy = torch.cat(rows, dim=1).mean(dim=1).tolist()
    return {"overlap": overlap, "dominance": most, "plan_entropy": entropy}
