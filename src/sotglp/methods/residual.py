"""Closed-form classifiers on image features, which SOT-GLP may add to its logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from sotglp.errors import SotglpError
from sotglp.images.few_shot import deal_folds
from sotglp.methods.base import exact_units
from sotglp.methods.gda import left_out_discriminant, shared_covariance_discriminant
from sotglp.methods.proker import choose_kernel, kernel_of, solve_ridge
from sotglp.settings import Residual

MOST_FOLDS = 16
"""Parts in which images are left out of the discriminant: one image of each class at once for up to 16 shots."""


class ClosedFormResidual(nn.Module, ABC):
    """Scores of C classes from unit image features; all zeros before :meth:`fit`."""

    @abstractmethod
    def fit(self, image_features: Tensor, targets: Tensor) -> Self:
        """Estimate from image features (n, d) and class indices (n,), each class at least once."""

    @abstractmethod
    def left_out(self, image_features: Tensor, targets: Tensor) -> Tensor:
        """Compute the scores of each image by the others, (n, C); by itself too if it is the only one of its class.

        Arguments are those of :meth:`fit`.
        """

    @abstractmethod
    def forward(self, unit_features: Tensor) -> Tensor:
        """Compute the scores (B, C) of unit features (B, d)."""

    @abstractmethod
    def of_classes(self, origins: Sequence[int]) -> Self:
        """Return the residual of some of the classes, in this order."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors by name; raise a SotglpError if they don't fit."""
        for name, own in self.named_buffers():
            value = tensors.get(name)
            if value is None or not value.is_floating_point() or value.shape != own.shape:
                raise SotglpError(f"its residual's {name} is missing or has another shape than in its settings")
            setattr(self, name, value.to(own))


class DiscriminantResidual(ClosedFormResidual):
    """Gaussian classes with one covariance; see :mod:`sotglp.methods.gda`."""

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(n_classes, width))
        self.register_buffer("intercepts", torch.zeros(n_classes))
        self.weights: Tensor
        self.intercepts: Tensor

    def fit(self, image_features: Tensor, targets: Tensor) -> Self:
        """Estimate the Gaussians."""
        features, targets = exact_units(image_features), targets.cpu()
        weights, intercepts = shared_covariance_discriminant(features, targets, len(self.intercepts))
        self.weights.copy_(weights)
        self.intercepts.copy_(intercepts)
        return self

    def left_out(self, image_features: Tensor, targets: Tensor) -> Tensor:
        """Leave out an image of each class at once; see :meth:`ClosedFormResidual.left_out`."""
        features, targets = exact_units(image_features), targets.cpu()
        folds = torch.from_numpy(deal_folds(targets.numpy(), MOST_FOLDS))
        if folds.any():
            return left_out_discriminant(features, targets, folds, len(self.intercepts))
        weights, intercepts = shared_covariance_discriminant(features, targets, len(self.intercepts))
        return features @ weights.T + intercepts

    def forward(self, unit_features: Tensor) -> Tensor:
        """Compute the discriminant, (B, C)."""
        return unit_features @ self.weights.T + self.intercepts

    def of_classes(self, origins: Sequence[int]) -> Self:
        """Return the discriminant of some of the classes."""
        part = type(self)(len(origins), self.weights.shape[1]).to(self.weights.device)
        part.restore({"weights": self.weights[list(origins)], "intercepts": self.intercepts[list(origins)]})
        return part


class KernelResidual(ClosedFormResidual):
    """Kernel ridge regression of one-hot labels, less 1/C; see :mod:`sotglp.methods.proker` for kernel and choice."""

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, width))
        self.register_buffer("coefficients", torch.zeros(n_classes, 0))
        self.register_buffer("sharpness", torch.ones(()))
        self.keys: Tensor
        self.coefficients: Tensor
        self.sharpness: Tensor

    def fit(self, image_features: Tensor, targets: Tensor) -> Self:
        """Choose sharpness and ridge by leaving out one image after the other, and solve the regression."""
        keys, labels, sharpness, ridge = self._problem(image_features, targets)
        coefficients = solve_ridge(keys, labels, sharpness, ridge)
        self.keys, self.coefficients = keys.to(self.keys), coefficients.to(self.coefficients)
        self.sharpness.fill_(sharpness)
        return self

    def left_out(self, image_features: Tensor, targets: Tensor) -> Tensor:
        """Leave out one image after the other, in closed form; see :meth:`ClosedFormResidual.left_out`."""
        keys, labels, sharpness, ridge = self._problem(image_features, targets)
        kernel = kernel_of(keys @ keys.T, sharpness)
        ridged = kernel + ridge * torch.eye(len(keys), dtype=keys.dtype)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ridged))
        coefficients = inverse @ labels
        if torch.bincount(targets.cpu()).min() < 2:
            return kernel @ coefficients
        return labels - coefficients / inverse.diagonal()[:, None]

    def _problem(self, image_features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, float, float]:
        """Return unit features (n, d), what is regressed on them (n, C), sharpness and ridge."""
        keys, targets = exact_units(image_features), targets.cpu()
        n_classes = len(self.coefficients)
        prior = torch.full((len(keys), n_classes), 1 / n_classes, dtype=keys.dtype)
        return keys, F.one_hot(targets, n_classes) - prior, *choose_kernel(keys, targets, prior)

    def forward(self, unit_features: Tensor) -> Tensor:
        """Compute the regression, (B, C)."""
        return kernel_of(unit_features @ self.keys.T, self.sharpness) @ self.coefficients.T

    def of_classes(self, origins: Sequence[int]) -> Self:
        """Return the regression of some of the classes, on all keys."""
        part = type(self)(len(origins), self.keys.shape[1]).to(self.keys.device)
        coefficients = self.coefficients[list(origins)]
        part.restore({"keys": self.keys, "coefficients": coefficients, "sharpness": self.sharpness})
        return part

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors by name, with any number of keys; see :meth:`ClosedFormResidual.restore`."""
        keys = tensors.get("keys")
        if keys is not None and keys.ndim == 2:
            self.keys = self.keys.new_zeros(len(keys), self.keys.shape[1])
            self.coefficients = self.coefficients.new_zeros(len(self.coefficients), len(keys))
        super().restore(tensors)


KINDS: dict[Residual, type[DiscriminantResidual] | type[KernelResidual]] = {
    "gda": DiscriminantResidual,
    "proker": KernelResidual,
}


def build_residual(kind: Residual, n_classes: int, width: int) -> ClosedFormResidual:
    """Build an unfitted residual for features of length ``width``."""
    return KINDS[kind](n_classes, width)
