"""A trained model looks at its shots once more, to remember them."""

from __future__ import annotations

from pathlib import Path

import torch

from sotglp.backbone.precision import autocast
from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.regions import region_features
from sotglp.methods.shot_memory import ShotMemory, unit_features
from sotglp.settings import InferenceConfig


@torch.no_grad()
def build_shot_memory(
    model: AdaptedModel, images: ImageSet, inference: InferenceConfig, *, cache_dir: Path | None = None
) -> ShotMemory:
    """Features of labelled images, and of what their own classes look at in them.

    Parameters
    ----------
    model : AdaptedModel
        A trained model.
    images : ImageSet
        Labelled images of its classes, (n).
    inference : InferenceConfig
        How they are read.
    cache_dir : Path or None
        See :func:`sotglp.features.encode.encode_images`.
    """
    targets = torch.from_numpy(images.targets(model.class_names))
    device = model.backbone.device
    with autocast(device, inference.precision):
        text = model.eval().encode_text()
    features, regions = [], []
    for indices, encoded in encode_images(model.backbone, images, inference, cache_dir):
        # As a cache stores them, so that a run remembers the same with and without one.
        encoded = encoded.rounded().to(device)
        outputs = model.compare(encoded, text)
        features.append(unit_features(encoded.image_features))
        regions.append(unit_features(region_features(model, encoded, outputs, targets[indices].to(device))))
    return ShotMemory(torch.cat(features), torch.cat(regions), targets)
