"""Features of the labelled images that a model learned from, for scores that compare new images with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor
from torch.nn import functional as F

from sotglp.errors import SotglpError

NEIGHBOUR = 10
"""The neighbour whose similarity is the score, or the last one where there are fewer shots; see docs/trust.md."""


class ClassGaussians:
    """Gaussians of unit features, one for each class that has any, with one covariance for all.

    The covariance is shrunk by Ledoit and Wolf's rule, since there are fewer shots than dimensions. Where no class has
    two different shots it is not known, and the identity stands for it.

    Parameters
    ----------
    features : Tensor
        (n, d), of unit length.
    classes : Tensor
        Class of each, (n,).

    References
    ----------
    Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """

    def __init__(self, features: Tensor, classes: Tensor) -> None:
        features = features.double()
        _, own = torch.unique(classes, return_inverse=True)
        counts = torch.bincount(own)
        sums = torch.zeros(len(counts), features.shape[1], dtype=torch.float64).index_add_(0, own, features)
        self.means = sums / counts[:, None]
        away = features - self.means[own]
        precision = torch.eye(features.shape[1], dtype=torch.float64)
        if away.any():
            precision = torch.from_numpy(LedoitWolf(assume_centered=True).fit(away.numpy()).precision_)
        # Distances in coordinates that make the covariance the identity are ordinary ones.
        self._whitening = torch.linalg.cholesky(precision)

    def nearness(self, features: Tensor) -> Tensor:
        """Negative squared Mahalanobis distance of unit features (B, d) to the nearest mean, (B,)."""
        white, means = features.double() @ self._whitening, self.means @ self._whitening
        # In float64 the difference of squares keeps enough digits, and unlike cdist it can be traced.
        squares = white.square().sum(dim=1, keepdim=True) - 2 * white @ means.T + means.square().sum(dim=1)
        nearest: Tensor = -squares.amin(dim=1).float()
        return nearest


class ShotMemory:
    """Unit features of the shots, of whole images and of what the model looked at in them, and their classes.

    Parameters
    ----------
    features : Tensor
        Image features of unit length, (n, d), float32 on the CPU, as the others are.
    regions : Tensor
        Features of the regions that each image's own class looked at, of unit length, (n, d); see
        :mod:`sotglp.methods.regions`.
    classes : Tensor
        Class of each image, (n,), int64.

    Raises
    ------
    SotglpError
        If there are no features, or not as many as classes.
    """

    def __init__(self, features: Tensor, regions: Tensor, classes: Tensor) -> None:
        shapes_fit = features.ndim == 2 and regions.shape == features.shape and classes.shape == features.shape[:1]
        if not (shapes_fit and len(features)):
            raise SotglpError("the features of the shots and their classes do not fit each other")
        self.features, self.regions, self.classes = features, regions, classes

    def nearest(self, features: Tensor) -> Tensor:
        """Cosine of image features (B, d) with the ``NEIGHBOUR``-th most similar shot, (B,).

        On the unit sphere the distance falls as the cosine grows, so images stand in the same order.

        References
        ----------
        Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", arXiv 2204.06507.
        """
        cosines = unit_features(features) @ self.features.T
        return cosines.topk(min(NEIGHBOUR, cosines.shape[1]), dim=1).values[:, -1]

    def mahalanobis(self, features: Tensor) -> Tensor:
        """Negative squared Mahalanobis distance of image features (B, d) to the nearest class, (B,).

        References
        ----------
        Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", arXiv 1807.03888.
        """
        return self._of_images.nearness(unit_features(features))

    def mahalanobis_of_regions(self, regions: Tensor) -> Tensor:
        """The same for features of regions, (B,)."""
        return self._of_regions.nearness(unit_features(regions))

    def of_classes(self, origins: Sequence[int | None]) -> ShotMemory | None:
        """What is left where class i of a model comes from class ``origins[i]`` here, or is new; None if nothing is."""
        class_index = {origin: place for place, origin in enumerate(origins) if origin is not None}
        kept = [index for index, own in enumerate(self.classes.tolist()) if own in class_index]
        if not kept:
            return None
        classes = torch.tensor([class_index[own] for own in self.classes[kept].tolist()])
        return ShotMemory(self.features[kept], self.regions[kept], classes)

    def joined(self, other: ShotMemory) -> ShotMemory:
        """These shots and further ones."""
        return ShotMemory(
            torch.cat([self.features, other.features]),
            torch.cat([self.regions, other.regions]),
            torch.cat([self.classes, other.classes]),
        )

    def fitted(self) -> ShotMemory:
        """The same, with the Gaussians of :meth:`mahalanobis` fitted now and not at the first image."""
        _ = self._of_images, self._of_regions
        return self

    @cached_property
    def _of_images(self) -> ClassGaussians:
        return ClassGaussians(self.features, self.classes)

    @cached_property
    def _of_regions(self) -> ClassGaussians:
        return ClassGaussians(self.regions, self.classes)


def unit_features(features: Tensor) -> Tensor:
    """Features at length 1, float32, on the CPU."""
    return F.normalize(features.detach().float().cpu(), dim=-1)
