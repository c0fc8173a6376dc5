"""GDA: a Gaussian discriminant on frozen features, added to zero-shot CLIP; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.images.few_shot import deal_folds
from sotglp.methods.base import check_every_class, exact_units
from sotglp.methods.class_gaussians import class_means
from sotglp.methods.configs import GdaConfig
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings

WEIGHTS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Published grid of the weight."""

DEFAULT_WEIGHT = 0.03
"""Weight if a class has a single shot, so that none can be left out; ours, from four sets of photos."""

MOST_FOLDS = 4


class GDA(ZeroShot):
    """Adds the logits of Gaussian classes with a shared covariance to the scaled zero-shot cosines.

    The discriminant has ``weights`` (C, d) and ``intercepts`` (C,), zeros before :meth:`fit_features`, and counts
    ``fusion_weight`` (a scalar) times; see Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based
    Adaptation", ICLR 2024, arXiv 2402.04087. The authors choose the weight on validation images. Here it is chosen by
    cross-validation on the shots, unless it is set.
    """

    kind: ClassVar[str] = "gda"
    Config: ClassVar[type[Settings]] = GdaConfig
    kept: ClassVar[tuple[str, ...]] = ("weights", "intercepts", "fusion_weight")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.register_buffer("weights", torch.zeros_like(self.class_vectors))
        self.register_buffer("intercepts", self.class_vectors.new_zeros(len(self.class_names)))
        self.register_buffer("fusion_weight", self.class_vectors.new_zeros(()))
        self.weights: Tensor
        self.intercepts: Tensor
        self.fusion_weight: Tensor

    @property
    def class_rows(self) -> tuple[str, ...]:
        """Weights and intercepts."""
        return ("weights", "intercepts")

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Estimate the Gaussians from features (n, d) and class indices (n,), and choose their weight.

        Raise a SotglpError if a class has no features.
        """
        check_every_class(self, targets)
        features, targets = exact_units(image_features), targets.cpu()
        weights, intercepts = shared_covariance_discriminant(features, targets, len(self.class_names))
        fusion_weight = self.config.fusion_weight
        if fusion_weight is None:
            zero_shot = self.backbone.logit_scale * features @ self.class_vectors.double().cpu().T
            fusion_weight = choose_weight(features, targets, zero_shot)
        self.weights.copy_(weights)
        self.intercepts.copy_(intercepts)
        self.fusion_weight.fill_(fusion_weight)

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Add the weighted discriminant, divided by the backbone's scale, to the cosines, (B, C)."""
        discriminant = image @ self.weights.T + self.intercepts
        return image @ vectors.T + self.fusion_weight * discriminant / self.backbone.logit_scale


def shared_covariance_discriminant(features: Tensor, classes: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Compute weights (C, d) and intercepts (C,) of Gaussian classes with equal priors and one covariance.

    ``features`` are (n, d), float64, and ``classes`` (n,). The precision is d ((n - 1) S + tr(S) I)^-1, the estimator
    of Kubokawa & Srivastava that the paper uses, where S is the covariance around the class means. With one shot of
    each class, S is the covariance around the mean of all; this is ours: the authors' code draws augmented views of
    each shot.
    """
    n, width = features.shape
    means = class_means(features, classes, n_classes)
    deviations = features - means[classes]
    if not deviations.any():
        deviations = features - features.mean(dim=0)
    # The precision is solved for the means: d ((n - 1) S + t I)^-1 with the trace t of S.
    shrinkage = float(deviations.square().sum()) / max(n - 1, 1)
    if shrinkage == 0:
        weights = means
    elif n < width:
        # By the identity of Woodbury, with a matrix (n, n) in place of (d, d).
        inner = deviations @ deviations.T + shrinkage * torch.eye(n, dtype=features.dtype)
        within = torch.cholesky_solve(deviations @ means.T, torch.linalg.cholesky(inner))
        weights = (means - within.T @ deviations) * (width / shrinkage)
    else:
        outer = deviations.T @ deviations + shrinkage * torch.eye(width, dtype=features.dtype)
        weights = width * torch.cholesky_solve(means.T, torch.linalg.cholesky(outer)).T
    return weights, -(weights * means).sum(dim=1) / 2 - math.log(n_classes)


def left_out_discriminant(features: Tensor, classes: Tensor, folds: Tensor, n_classes: int) -> Tensor:
    """Compute the discriminant of each shot from the shots of the other ``folds`` (n,), (n, C)."""
    scores = features.new_empty(len(features), n_classes)
    for fold in folds.unique():
        own = folds == fold
        weights, intercepts = shared_covariance_discriminant(features[~own], classes[~own], n_classes)
        scores[own] = features[own] @ weights.T + intercepts
    return scores


def choose_weight(features: Tensor, classes: Tensor, zero_shot: Tensor) -> float:
    """Choose the weight in ``WEIGHTS`` with the most correct shots, each judged by the discriminant of other shots.

    ``zero_shot`` are the scaled cosines of the shots, (n, C). The cross entropy breaks ties. Returns
    ``DEFAULT_WEIGHT`` if a class has a single shot.
    """
    folds = torch.from_numpy(deal_folds(classes.numpy(), MOST_FOLDS))
    if not folds.any():
        return DEFAULT_WEIGHT
    discriminant = left_out_discriminant(features, classes, folds, zero_shot.shape[1])

    def merit(weight: float) -> tuple[int, float]:
        logits = zero_shot + weight * discriminant
        n_correct = int((logits.argmax(dim=1) == classes).sum())
        return n_correct, -F.cross_entropy(logits, classes).item()

    return max(WEIGHTS, key=merit)
