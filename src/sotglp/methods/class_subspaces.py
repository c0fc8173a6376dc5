"""Subspaces that the shots of each class span: an image far from all of them shows none of the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from sotglp.methods.class_gaussians import class_means

NOISE = 0.1
"""Share of the mean variance within classes that counts as noise in every direction."""

RELATIVE = 0.2
"""Weight of the squared distance to the mean of all shots, which is large where classes differ, whatever the image."""


class ClassSubspaces:
    """Squared distances of unit features to the subspaces of classes, from unit features (n, d) of their shots.

    The subspace of a class goes through the mean of its shots, along the differences between them. With few shots, what
    an image has outside of it says more than its place inside, for which a covariance would be needed. The distance is
    that outside part, with a ridge: noise times the squared Mahalanobis distance whose covariance is the class's own
    plus the noise times the identity. A class with a single shot has its mean alone.

    References
    ----------
    Classes as separate principal components: SIMCA (Wold, Pattern Recognition 8, 1976). The distance relative to that
    of all classes: Ren et al., arXiv 2106.09022. Both constants were chosen in a trial on training photos;
    docs/near_ood_measured.md compares others.
    """

    def __init__(self, features: Tensor, classes: Tensor, *, noise: float = NOISE, relative: float = RELATIVE) -> None:
        features = features.double()
        self._relative = relative
        _, own = torch.unique(classes, return_inverse=True)
        counts = torch.bincount(own)
        self._center, self._means = features.mean(dim=0), class_means(features, own, len(counts))
        deviations = features - self._means[own]
        ridge = noise * deviations.square().sum() / len(features)
        # Rows (classes, most shots of one, d) whose squared products with a deviation sum to its part inside.
        self._directions = torch.zeros(len(counts), int(counts.max()), features.shape[1], dtype=torch.float64)
        if ridge > 0:
            for index, count in enumerate(counts.tolist()):
                rows = deviations[own == index] / count**0.5
                factor = torch.linalg.cholesky(rows @ rows.T + ridge * torch.eye(count, dtype=torch.float64))
                self._directions[index, :count] = torch.linalg.solve_triangular(factor, rows, upper=False)

    def nearness(self, features: Tensor) -> Tensor:
        """Compute the negative distance of unit features (B, d) to the nearest class, relative to all shots, (B,)."""
        features = features.double()
        # Differences of squares can be traced, and are accurate enough in float64.
        squares = features.square().sum(dim=1, keepdim=True)
        outside = squares - 2 * features @ self._means.T + self._means.square().sum(dim=1)
        offsets = torch.einsum("ckd,cd->ck", self._directions, self._means)
        inside = torch.einsum("bd,ckd->bck", features, self._directions) - offsets
        to_center = (squares - 2 * features @ self._center[:, None] + self._center.square().sum())[:, 0]
        distances = outside - inside.square().sum(dim=2)
        nearness: Tensor = (self._relative * to_center - distances.amin(dim=1)).float()
        return nearness
