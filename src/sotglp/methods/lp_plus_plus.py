"""LP++: a linear probe that blends class prototypes with text by a learned multiplier of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.methods.base import check_every_class, exact_units
from sotglp.methods.configs import LpPlusPlusConfig
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings

MOMENTUM = 0.9
STEPS_PER_MULTIPLIER_STEP = 10
INITIAL_SCALE = 250
"""Multipliers start at it times the mean cosine of shots with their own text."""


class LPPlusPlus(ZeroShot):
    """Logistic regression with logits f (w_c + a_c t_c) for a unit image feature f and text features t_c.

    The prototypes w are ``prototypes`` (C, d), the multipliers a are ``multipliers`` (C,), zeros before
    :meth:`fit_features`. See Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024,
    arXiv 2404.02285: all starting values and step sizes come from the data, so that nothing is tuned.

    Starting values, step sizes, momentum and 300 iterations follow the authors' code, with three differences: it keeps
    the iterate that is best on validation images, here the last one counts; it has an intercept, which the paper has
    not; it adds up the multipliers' gradient over all iterations, here each of their steps uses the current one.
    """

    kind: ClassVar[str] = "lp++"
    Config: ClassVar[type[Settings]] = LpPlusPlusConfig
    kept: ClassVar[tuple[str, ...]] = ("prototypes", "multipliers")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.register_buffer("prototypes", torch.zeros_like(self.class_vectors))
        self.register_buffer("multipliers", self.class_vectors.new_zeros(len(self.class_names)))
        self.prototypes: Tensor
        self.multipliers: Tensor

    @property
    def class_rows(self) -> tuple[str, ...]:
        """All kept tensors."""
        return self.kept

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Fit prototypes and multipliers to features (n, d) and class indices (n,), all of them in each iteration.

        Raise a SotglpError if a class has no features.
        """
        check_every_class(self, targets)
        features = exact_units(image_features)
        labels = F.one_hot(targets.cpu(), len(self.class_names)).double()
        prototypes, multipliers = fit_blend(
            features, labels, self.class_vectors.double().cpu(), n_iterations=self.config.iterations
        )
        self.prototypes.copy_(prototypes)
        self.multipliers.copy_(multipliers)

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Compute logits of the regression, divided by the backbone's scale, (B, C)."""
        return (image @ self.prototypes.T + self.multipliers * (image @ vectors.T)) / self.backbone.logit_scale


def fit_blend(features: Tensor, labels: Tensor, text: Tensor, *, n_iterations: int) -> tuple[Tensor, Tensor]:
    """Minimise the cross entropy over prototypes (C, d) and multipliers (C,) by alternating gradient steps.

    ``features`` are (n, d) and ``text`` (C, d), of unit length, and ``labels`` one-hot, (n, C). The steps are 4 n over
    the largest eigenvalue of the features' second moments for prototypes, and n over 4 times the largest sum of squared
    cosines with a class for multipliers.
    """
    n = len(features)
    cosines = features @ text.T
    prototypes = labels.T @ features
    start = (labels * cosines).sum(dim=0) / labels.sum(dim=0)
    multipliers = torch.full_like(start, INITIAL_SCALE * start.mean().item())
    # The smaller one of two matrices with the same largest eigenvalue.
    moments = features @ features.T if n < features.shape[1] else features.T @ features
    prototype_step = 4 * n / torch.linalg.eigvalsh(moments)[-1]
    multiplier_step = n / (4 * cosines.square().sum(dim=0).max())
    velocity = torch.zeros_like(prototypes)
    for iteration in range(n_iterations):
        logits = features @ prototypes.T + multipliers * cosines
        slope = (logits.softmax(dim=1) - labels) / n
        velocity = MOMENTUM * velocity + slope.T @ features
        prototypes = prototypes - prototype_step * velocity
        if (iteration + 1) % STEPS_PER_MULTIPLIER_STEP == 0:
            multipliers = multipliers - multiplier_step * (slope * cosines).sum(dim=0)
    return prototypes, multipliers
