"""The closed-form residual of a trained SOT-GLP, and how much it counts."""

from __future__ import annotations

import torch
from torch import Tensor

from sotglp.backbone.precision import autocast
from sotglp.features.encode import encode_images
from sotglp.features.view_cache import CacheDir
from sotglp.images.image_set import ImageSet
from sotglp.methods.fused_model import FusedModel
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import InferenceConfig

MOST_SHARE, LEAST_SHARE = 4.0, 0.4
"""Spread of the weighted residual in units of the spread of the branches' logits; see docs/fused_measured.md."""


@torch.no_grad()
def add_residual(
    model: FusedModel, images: ImageSet, inference: InferenceConfig, *, cache_dir: CacheDir = None
) -> None:
    """Fit the residual of a trained model on its shots, and set what it counts unless the settings do.

    The trained branches keep their factors. The weight follows from three numbers: the spreads of the branches' logits
    and of the residual on the shots, and :func:`share`. Branches have seen the shots, and their logits spread about a
    sixth more there than on other images; each shot gets the residual of other shots, which spreads as much more.
    Choosing all factors by the cross entropy of held-out shots is worse and takes two more fits.
    """
    targets = torch.from_numpy(images.targets(model.class_names))
    device = model.backbone.device
    chooses = model.config.fusion is None
    with autocast(device, inference.precision):
        text = model.eval().encode_text() if chooses else None
    features, logits = [], []
    for _, encoded in encode_images(model.backbone, images, inference, cache_dir):
        # Rounded as in a cache, so that the model is the same with and without one.
        encoded = encoded.rounded().to(device)
        if text is not None:
            logits.append(model.logits(model.compare(encoded, text)))
        features.append(encoded.image_features.float())
    shots = torch.cat(features)
    residual = model.new_residual()
    zero_shot = ZeroShot(model.backbone, model.class_names)
    if chooses:
        left_out = residual.left_out(shots, targets, zero_shot)
        of_residual = _spread(left_out)
        by_names = zero_shot.global_cosines(shots, zero_shot.encode_text())
        times = share(_accuracy(by_names, targets), _accuracy(left_out, targets))
        weight = times * _spread(torch.cat(logits)) / of_residual if of_residual else 0.0
        model.config = model.config.model_copy(update={"fusion": (*model.fusion[:2], weight)})
    model.residual = residual.fit(shots, targets, zero_shot)


def share(zero_shot: float, left_out: float) -> float:
    """Return the share of the residual for two accuracies on the shots: zero-shot, and of left-out residuals.

    Residuals other than the pool ignore class names, on which the branches build: where the names alone are as accurate
    as the shots, the branches hold what the residual lacks.
    """
    return max(MOST_SHARE * (1 - zero_shot / left_out), LEAST_SHARE) if left_out > 0 else LEAST_SHARE


def _accuracy(scores: Tensor, targets: Tensor) -> float:
    return float((scores.cpu().argmax(dim=1) == targets).double().mean())


def _spread(scores: Tensor) -> float:
    """Root mean square of scores (n, C) around the mean of each image."""
    centred = scores.double() - scores.double().mean(dim=1, keepdim=True)
    return float(centred.square().mean().sqrt())
