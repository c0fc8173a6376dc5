"""The detectors of pytorch-ood that apply to image features, logits and a linear head, on the same features as ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pytorch_ood.detector as detectors
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Compared(NamedTuple):
    """What detectors see of n images: unit features (n, d), class logits (n, C)."""

    features: Tensor
    logits: Tensor


Score = Callable[[Compared], Tensor]
"""Outlier scores (n,), larger for out-of-distribution images."""


def detectors_for(shots: Compared, classes: Tensor, vectors: Tensor) -> dict[str, Callable[[], Score]]:
    """Return how each detector is fitted on the shots.

    ``classes`` are class indices (n,), and ``vectors`` (C, d) the weights of the linear head on unit features, which
    has no bias. Parameters are the detector's defaults, and others of its search space if the default needs more images
    than there are, or if there is no default.
    """
    n_classes, width = vectors.shape
    bias = torch.zeros(n_classes)
    head = nn.Linear(width, n_classes)
    with torch.no_grad():
        head.weight.copy_(vectors)
        head.bias.zero_()
    maps = nn.Sequential(nn.Flatten(), head)

    def on_logits(detector: detectors.EnergyBased) -> Callable[[], Score]:
        return lambda: lambda images: detector.predict_logits(images.logits)

    def fitted_on_logits(detector: detectors.OpenMax) -> Callable[[], Score]:
        def fit() -> Score:
            detector.fit_logits(shots.logits, classes)
            return lambda images: detector.predict_logits(images.logits)

        return fit

    def on_features(detector: detectors.KNN) -> Callable[[], Score]:
        def fit() -> Score:
            detector.fit_features(shots.features, classes)
            return lambda images: detector.predict_features(images.features)

        return fit

    def on_maps(detector: detectors.ReAct) -> Callable[[], Score]:
        def fit() -> Score:
            if hasattr(detector, "fit_feature_maps"):
                detector.fit_feature_maps(shots.features[:, :, None, None], classes)
            return lambda images: detector.predict_feature_maps(images.features[:, :, None, None])

        return fit

    n = len(classes)
    return {
        "MaxSoftmax": on_logits(detectors.MaxSoftmax(None)),
        "MaxLogit": on_logits(detectors.MaxLogit(None)),
        "EnergyBased": on_logits(detectors.EnergyBased(None)),
        "Entropy": on_logits(detectors.Entropy(None)),
        "GEN": on_logits(detectors.GEN(None)),
        "TemperatureScaling": fitted_on_logits(detectors.TemperatureScaling(None)),
        "KLMatching": fitted_on_logits(detectors.KLMatching(None)),
        "OpenMax": fitted_on_logits(detectors.OpenMax(None, tailsize=min(25, n), alpha=min(10, n_classes))),
        "MCM": lambda: lambda images: detectors.MCM(None, vectors).predict_features(images.features),
        **{f"KNN, k={k}": on_features(detectors.KNN(None, k=k)) for k in sorted({1, min(10, n), min(50, n)})},
        "Mahalanobis": on_features(detectors.Mahalanobis(None)),
        "RMD": on_features(detectors.RMD(None)),
        "GMM": on_features(detectors.GMM(None)),
        "SHE": on_features(detectors.SHE(None, head)),
        **{f"ViM, d={d}": on_features(detectors.ViM(None, d, vectors, bias)) for d in (16, 64, 128)},
        "NNGuide": on_features(detectors.NNGuide(None, head, k=min(10, n))),
        "fDBD": on_features(detectors.fDBD(None, head)),
        "NCI": on_features(detectors.NCI(None, head)),
        "pNML": on_features(detectors.PNML(None, head)),
        "DICE": on_features(detectors.DICE(None, vectors, bias, p=0.7)),
        "LTS": lambda: detector_of_features(detectors.LTS(None, head)),
        "GradNorm": lambda: lambda images: detectors.GradNorm(head).to("cpu").predict(images.features),
        "ReAct": on_maps(detectors.ReAct(None, maps)),
        "VRA": on_maps(detectors.VRA(None, maps)),
        "ASH-S": on_maps(detectors.ASH(None, maps)),
        "ASH-P": on_maps(detectors.ASH(None, maps, variant="ash-p")),
        "SCALE": on_maps(detectors.SCALE(None, maps)),
    }


def detector_of_features(detector: detectors.LTS) -> Score:
    return lambda images: detector.predict_features(images.features)


@torch.no_grad()
def peer_scores(
    shots: Compared, classes: Tensor, vectors: Tensor, parts: Mapping[str, Compared]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Scores of the images of each part by detector, larger for known images; a detector that fails is left out."""
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, fit in detectors_for(shots, classes, vectors).items():
        try:
            score = fit()
            found[name] = {part: -score(images).double().cpu().numpy() for part, images in parts.items()}
        except (ValueError, RuntimeError, AssertionError) as error:
            warnings.warn(f"{name} with {len(classes)} shots: {error}", stacklevel=2)
    return found
