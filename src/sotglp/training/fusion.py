"""The closed-form residual of a trained SOT-GLP, and how much it counts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sotglp.backbone.precision import autocast
from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.sot_glp import SOTGLP
from sotglp.settings import InferenceConfig

SHARE = 2.0
"""Spread of the weighted residual, in units of the spread of the trained branches' logits; docs/fused_measured.md."""


@torch.no_grad()
def add_residual(
    model: SOTGLP, images: ImageSet, inference: InferenceConfig, *, cache_dir: Path | None = None
) -> None:
    """Fit the residual of a trained model on its shots, and set what it counts unless the settings do.

    The trained branches keep their factors. Spreads are compared on the shots. Branches have seen them, and their
    logits spread about a sixth more there than on other images; each shot gets the residual of other shots, which
    spreads as much more. Choosing factors by the accuracy or the cross entropy of held-out shots is worse than a fixed
    share: a few dozen shots can't tell apart what differs by some percent, and the folds need two more fits.
    """
    targets = torch.from_numpy(images.targets(model.class_names))
    device = model.backbone.device
    with autocast(device, inference.precision):
        text = model.eval().encode_text()
    features, logits = [], []
    for _, encoded in encode_images(model.backbone, images, inference, cache_dir):
        # Rounded as in a cache, so that the model is the same with and without one.
        encoded = encoded.rounded().to(device)
        logits.append(model.logits(model.compare(encoded, text)))
        features.append(encoded.image_features.float())
    shots = torch.cat(features)
    residual = model.new_residual()
    if model.config.fusion is None:
        of_residual = _spread(residual.left_out(shots, targets))
        weight = SHARE * _spread(torch.cat(logits)) / of_residual if of_residual else 0.0
        model.config = model.config.model_copy(update={"fusion": (*model.fusion[:2], weight)})
    model.residual = residual.fit(shots, targets)


def _spread(scores: Tensor) -> float:
    """Root mean square of scores (n, C) around the mean of each image."""
    centred = scores.double() - scores.double().mean(dim=1, keepdim=True)
    return float(centred.square().mean().sqrt())
