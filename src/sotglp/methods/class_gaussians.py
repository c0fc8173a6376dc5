"""Means of the features of classes, and Gaussians around them with one covariance."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassGaussians:
    """Gaussians of unit features (n, d), one for each class with features, with a shared covariance.

    The covariance is shrunk by the rule of Ledoit & Wolf ("A well-conditioned estimator for large-dimensional
    covariance matrices", 2004), since there are fewer shots than dimensions. It is the identity if no class has two
    different shots.
    """

    def __init__(self, features: Tensor, classes: Tensor) -> None:
        features = features.double()
        _, own = torch.unique(classes, return_inverse=True)
        self.means = class_means(features, own, int(own.max()) + 1)
        deviations = features - self.means[own]
        precision = torch.eye(features.shape[1], dtype=torch.float64)
        if deviations.any():
            precision = _shrunk_precision(deviations)
        self._whitening = torch.linalg.cholesky(precision)

    def nearness(self, features: Tensor) -> Tensor:
        """Negative squared Mahalanobis distance of unit features (B, d) to the nearest mean, (B,)."""
        white, means = features.double() @ self._whitening, self.means @ self._whitening
        # Unlike cdist, this can be traced; in float64 the difference of squares is accurate enough.
        squares = white.square().sum(dim=1, keepdim=True) - 2 * white @ means.T + means.square().sum(dim=1)
        nearest: Tensor = -squares.amin(dim=1).float()
        return nearest


def class_means(features: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Compute the mean of features (n, d) of each class index in ``classes`` (n,), (C, d); NaN for a class without."""
    sums = features.new_zeros(n_classes, features.shape[1]).index_add_(0, classes, features)
    return sums / torch.bincount(classes, minlength=n_classes)[:, None]


def _shrunk_precision(deviations: Tensor) -> Tensor:
    """Compute the inverse of the Ledoit-Wolf covariance of deviations (n, d) from their means, (d, d).

    It is :class:`sklearn.covariance.LedoitWolf`, whose import takes longer than a prediction.
    """
    n, width = deviations.shape
    squares = deviations.square()
    scale = squares.sum() / (n * width)
    covariance = deviations.T @ deviations / n
    identity = torch.eye(width, dtype=deviations.dtype)
    distance = (covariance - scale * identity).square().sum() / width
    noise = (squares.sum(dim=1).square().sum() / n - covariance.square().sum()) / (n * width)
    weight = float(torch.minimum(noise, distance) / distance) if distance > 0 else 0.0
    precision: Tensor = torch.linalg.pinv((1 - weight) * covariance + weight * scale * identity, hermitian=True)
    return precision
