"""Linear probe: logistic regression on image features, without text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.methods.base import AdaptedModel, check_every_class, exact_units
from sotglp.methods.configs import LinearProbeConfig
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings

MOST_ITERATIONS = 2000


class LinearProbe(ZeroShot):
    """Scikit-learn's logistic regression on image features of unit length (CLIP, arXiv 2103.00020, appendix).

    Its logits replace scaled cosines. Patches are still compared with sentences, for OOD scores only. Before
    :meth:`fit_features`, ``weights`` (C, d) and ``intercepts`` (C,) are zeros.
    """

    kind: ClassVar[str] = "linear-probe"
    Config: ClassVar[type[Settings]] = LinearProbeConfig
    kept: ClassVar[tuple[str, ...]] = ("weights", "intercepts")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.register_buffer("weights", torch.zeros_like(self.class_vectors))
        self.register_buffer("intercepts", self.class_vectors.new_zeros(len(self.class_names)))
        self.weights: Tensor
        self.intercepts: Tensor

    @property
    def class_rows(self) -> tuple[str, ...]:
        """All kept tensors."""
        return self.kept

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Fit the regression to features (n, d) and class indices (n,); raise a SotglpError if a class has none."""
        check_every_class(self, targets)
        features = exact_units(image_features)
        weights, intercepts = fit_regression(features, targets.cpu(), self.config.inverse_regularisation)
        self.weights.copy_(weights)
        self.intercepts.copy_(intercepts)

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Compute logits of the regression, divided by the backbone's scale, (B, C)."""
        return (image @ self.weights.T + self.intercepts) / self.backbone.logit_scale

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """Raise OldClassesOnlyError, since every weight belongs to an old class."""
        return AdaptedModel.for_new_classes(self, class_names)


def fit_regression(features: Tensor, classes: Tensor, inverse_regularisation: float) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression to features (n, d) and classes (n,): weights (C, d) and intercepts (C,), float64."""
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=inverse_regularisation, max_iter=MOST_ITERATIONS)
    if len(features) < features.shape[1]:
        # The penalty keeps the weights in the span of the features, which has a dimension for each image at most.
        basis, coordinates = torch.linalg.qr(features.T)
        regression.fit(coordinates.T.numpy(), classes.numpy())
        weights, intercepts = regression.coef_ @ basis.T.numpy(), regression.intercept_
    else:
        regression.fit(features.numpy(), classes.numpy())
        weights, intercepts = regression.coef_, regression.intercept_
    if len(weights) == 1:  # for two classes, scikit-learn stores the difference
        weights, intercepts = (np.concatenate([-part, part]) / 2 for part in (weights, intercepts))
    return torch.from_numpy(weights), torch.from_numpy(intercepts)
