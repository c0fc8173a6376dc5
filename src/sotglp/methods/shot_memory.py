"""The memory of training images that OOD scores compare new images with, and that new classes are learned beside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.errors import SotglpError
from sotglp.methods.class_gaussians import ClassGaussians, class_means
from sotglp.methods.class_subspaces import ClassSubspaces
from sotglp.methods.shot_patches import ShotPatches

NEIGHBOUR = 10
"""Rank of the neighbour whose similarity is the score, or the last one of fewer shots."""

CLIPPED = 0.9
"""Quantile of the shots' activations above which ReAct clips, as published."""


class ShotMemory:
    """Unit features of n shots and of the regions selected in them, and their classes, on the CPU.

    ``features`` and ``regions``, the latter from :func:`sotglp.methods.shot_features.region_features`, are (n, d),
    float32, and ``classes`` class indices (n,), int64. ``patches`` are the patch tokens of the shots, or of some of
    each class; None if they are not stored. Raises a SotglpError if the shapes differ or there are no features.
    """

    def __init__(self, features: Tensor, regions: Tensor, classes: Tensor, patches: ShotPatches | None = None) -> None:
        shapes_fit = features.ndim == 2 and regions.shape == features.shape and classes.shape == features.shape[:1]
        if not (shapes_fit and len(features)):
            raise SotglpError("the shots' features and classes have different numbers of rows, or none")
        self.features, self.regions, self.classes = features, regions, classes
        self.patches = patches

    def nearest(self, features: Tensor) -> Tensor:
        """Compute the cosine of image features (B, d) with the ``NEIGHBOUR``-th most similar shot, (B,).

        On the unit sphere this gives the same order as the negative distance of Sun et al., "Out-of-Distribution
        Detection with Deep Nearest Neighbors", arXiv 2204.06507.
        """
        cosines = unit_features(features) @ self.features.T
        return cosines.topk(min(NEIGHBOUR, cosines.shape[1]), dim=1).values[:, -1]

    def mahalanobis(self, features: Tensor) -> Tensor:
        """Compute the negative squared Mahalanobis distance of image features (B, d) to the nearest class, (B,).

        See Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", arXiv 1807.03888.
        """
        return self._of_images.nearness(unit_features(features))

    def subspace(self, features: Tensor) -> Tensor:
        """Compute how near image features (B, d) are to the subspaces of classes, (B,); see :class:`ClassSubspaces`."""
        return self._subspaces.nearness(unit_features(features))

    def mahalanobis_of_regions(self, regions: Tensor) -> Tensor:
        """Compute the same for region features (B, d)."""
        return self._of_regions.nearness(unit_features(regions))

    def pattern_energy(self, features: Tensor, classes: Tensor) -> Tensor:
        """Compute the inner product of image features (B, d) with the mean shot of one class each, ``classes`` (B,).

        Features have unit length, means have not. A class without shots has the mean of all. See SHE: Zhang et al.,
        "Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization with Modern Hopfield Energy",
        ICLR 2023; its means are those of correctly classified images, here of all shots.
        """
        own = self._patterns[classes.cpu().clamp(max=len(self._patterns) - 1)]
        return (unit_features(features) * own).sum(dim=1)

    def residual(self, features: Tensor) -> Tensor:
        """Compute the length of image features (B, d) outside of the principal space of the shots, (B,).

        That space has half as many dimensions as there are shots, or as a feature has, whichever is less; ViM's authors
        have more images than dimensions. See Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching",
        arXiv 2203.10807.
        """
        outside: Tensor = (unit_features(features) @ self._minor_space).norm(dim=1)
        return outside

    @cached_property
    def activation_limit(self) -> float:
        """Quantile ``CLIPPED`` of all values of the shots' features."""
        return float(np.quantile(self.features.numpy(), CLIPPED))

    def of_classes(self, origins: Sequence[int | None]) -> ShotMemory | None:
        """Select the shots of a model whose class i was class ``origins[i]``, or is new; None if none is left."""
        class_index = {origin: index for index, origin in enumerate(origins) if origin is not None}
        kept = [index for index, own in enumerate(self.classes.tolist()) if own in class_index]
        if not kept:
            return None
        classes = torch.tensor([class_index[own] for own in self.classes[kept].tolist()])
        return self.of_rows(kept, classes)

    def of_rows(self, kept: Sequence[int], classes: Tensor | None = None) -> ShotMemory:
        """Select shots by ascending index; ``classes`` are other class indices for them."""
        rows = list(kept)
        patches = self.patches.of_rows(rows) if self.patches else None
        own = self.classes[rows] if classes is None else classes
        return ShotMemory(self.features[rows], self.regions[rows], own, patches)

    def joined(self, other: ShotMemory) -> ShotMemory:
        """Return these shots together with others, with patches if both have some."""
        patches = self.patches.joined(other.patches, len(self.classes)) if self.patches and other.patches else None
        return ShotMemory(
            torch.cat([self.features, other.features]),
            torch.cat([self.regions, other.regions]),
            torch.cat([self.classes, other.classes]),
            patches,
        )

    def fitted(self) -> ShotMemory:
        """Fit what the scores derive from the shots now rather than at the first image, and return the memory."""
        _ = self._of_images, self._of_regions, self._patterns, self._minor_space, self.activation_limit
        _ = self._subspaces
        return self

    @cached_property
    def _patterns(self) -> Tensor:
        """Mean shot of each class up to the last one with shots, then the mean of all, (classes + 1, d)."""
        counts = torch.bincount(self.classes)[:, None]
        means = class_means(self.features, self.classes, len(counts))
        everything = self.features.mean(dim=0, keepdim=True)
        return torch.cat([torch.where(counts > 0, means, everything), everything])

    @cached_property
    def _minor_space(self) -> Tensor:
        """Orthonormal directions of the least variation around the origin, (d, number)."""
        n, width = self.features.shape
        moments = self.features.double().T @ self.features.double()
        directions = torch.linalg.eigh(moments).eigenvectors  # from the least on
        minor: Tensor = directions[:, : width - min(n, width) // 2].float()
        return minor

    @cached_property
    def _subspaces(self) -> ClassSubspaces:
        return ClassSubspaces(self.features, self.classes)

    @cached_property
    def _of_images(self) -> ClassGaussians:
        return ClassGaussians(self.features, self.classes)

    @cached_property
    def _of_regions(self) -> ClassGaussians:
        return ClassGaussians(self.regions, self.classes)


def unit_features(features: Tensor) -> Tensor:
    """Scale features to length 1, in float32 on the CPU."""
    return F.normalize(features.detach().float().cpu(), dim=-1)
