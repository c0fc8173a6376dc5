"""Closed-form classifiers on image features, which SOT-GLP may add to its logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from sotglp.errors import SotglpError
from sotglp.images.few_shot import deal_folds
from sotglp.methods.base import exact_units
from sotglp.methods.configs import PoolConfig
from sotglp.methods.gda import left_out_discriminant, shared_covariance_discriminant
from sotglp.methods.pool import fit_pool
from sotglp.methods.proker import choose_kernel, kernel_of, solve_ridge
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Residual

MOST_FOLDS = 16
"""Parts in which images are left out of the discriminant: one image of each class at once for up to 16 shots."""

POOL_FOLDS = 8
"""Parts in which images are left out of a pool."""


class ClosedFormResidual(nn.Module, ABC):
    """Scores of C classes from unit image features; all zeros before :meth:`fit`.

    ``class_rows`` names the tensors that have a row for each class.
    """

    class_rows: ClassVar[tuple[str, ...]]

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.n_classes, self.width = n_classes, width

    @abstractmethod
    def fit(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Self:
        """Estimate from image features (n, d) and class indices (n,), each class at least once.

        ``zero_shot`` is the classification by the names of the classes, which not all kinds use.
        """

    @abstractmethod
    def left_out(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Tensor:
        """Compute the scores of each image by the others, (n, C); by itself too if it is the only one of its class.

        Arguments are those of :meth:`fit`.
        """

    @abstractmethod
    def forward(self, unit_features: Tensor) -> Tensor:
        """Compute the scores (B, C) of unit features (B, d)."""

    def of_classes(self, origins: Sequence[int]) -> Self:
        """Return the residual of some of the classes, in this order."""
        part = type(self)(len(origins), self.width)
        tensors = dict(self.named_buffers())
        part.restore(tensors | {name: tensors[name][list(origins)] for name in self.class_rows})
        return part.to(next(self.buffers()).device)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors by name; raise a SotglpError if they don't fit."""
        for name, own in self.named_buffers():
            value = tensors.get(name)
            if value is None or not value.is_floating_point() or value.shape != own.shape:
                raise SotglpError(f"its residual's {name} is missing or has another shape than in its settings")
            setattr(self, name, value.to(own))


class DiscriminantResidual(ClosedFormResidual):
    """Gaussian classes with one covariance; see :mod:`sotglp.methods.gda`."""

    class_rows: ClassVar[tuple[str, ...]] = ("weights", "intercepts")

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__(n_classes, width)
        self.register_buffer("weights", torch.zeros(n_classes, width))
        self.register_buffer("intercepts", torch.zeros(n_classes))
        self.weights: Tensor
        self.intercepts: Tensor

    def fit(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Self:
        """Estimate the Gaussians."""
        features, targets = exact_units(image_features), targets.cpu()
        weights, intercepts = shared_covariance_discriminant(features, targets, self.n_classes)
        self.weights.copy_(weights)
        self.intercepts.copy_(intercepts)
        return self

    def left_out(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Tensor:
        """Leave out an image of each class at once; see :meth:`ClosedFormResidual.left_out`."""
        features, targets = exact_units(image_features), targets.cpu()
        folds = torch.from_numpy(deal_folds(targets.numpy(), MOST_FOLDS))
        if folds.any():
            return left_out_discriminant(features, targets, folds, self.n_classes)
        weights, intercepts = shared_covariance_discriminant(features, targets, self.n_classes)
        return features @ weights.T + intercepts

    def forward(self, unit_features: Tensor) -> Tensor:
        """Compute the discriminant, (B, C)."""
        return unit_features @ self.weights.T + self.intercepts


class KernelResidual(ClosedFormResidual):
    """Kernel ridge regression of one-hot labels, less 1/C; see :mod:`sotglp.methods.proker` for kernel and choice."""

    class_rows: ClassVar[tuple[str, ...]] = ("coefficients",)

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__(n_classes, width)
        self.register_buffer("keys", torch.zeros(0, width))
        self.register_buffer("coefficients", torch.zeros(n_classes, 0))
        self.register_buffer("sharpness", torch.ones(()))
        self.keys: Tensor
        self.coefficients: Tensor
        self.sharpness: Tensor

    def fit(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Self:
        """Choose sharpness and ridge by leaving out one image after the other, and solve the regression."""
        keys, labels, sharpness, ridge = self._problem(image_features, targets)
        coefficients = solve_ridge(keys, labels, sharpness, ridge)
        self.keys, self.coefficients = keys.to(self.keys), coefficients.to(self.coefficients)
        self.sharpness.fill_(sharpness)
        return self

    def left_out(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Tensor:
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
        prior = torch.full((len(keys), self.n_classes), 1 / self.n_classes, dtype=keys.dtype)
        return keys, F.one_hot(targets, self.n_classes) - prior, *choose_kernel(keys, targets, prior)

    def forward(self, unit_features: Tensor) -> Tensor:
        """Compute the regression, (B, C)."""
        return kernel_of(unit_features @ self.keys.T, self.sharpness) @ self.coefficients.T

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors by name, with any number of keys; see :meth:`ClosedFormResidual.restore`."""
        keys = tensors.get("keys")
        if keys is not None and keys.ndim == 2:
            self.keys = self.keys.new_zeros(len(keys), self.keys.shape[1])
            self.coefficients = self.coefficients.new_zeros(len(self.coefficients), len(keys))
        super().restore(tensors)


class PoolResidual(KernelResidual):
    """GDA, ProKeR and a linear probe with the names of the classes; see :mod:`sotglp.methods.pool`."""

    class_rows: ClassVar[tuple[str, ...]] = ("coefficients", "weights", "intercepts")

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__(n_classes, width)
        self.register_buffer("weights", torch.zeros(n_classes, width))
        self.register_buffer("intercepts", torch.zeros(n_classes))
        self.weights: Tensor
        self.intercepts: Tensor

    def fit(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Self:
        """Fit the members and their temperatures; the vectors of the classes become part of the weights."""
        pool = fit_pool(zero_shot, image_features, targets, PoolConfig(), POOL_FOLDS)
        scale = float(zero_shot.backbone.logit_scale)
        vectors = zero_shot.class_vectors.double().cpu()
        self.keys, self.coefficients = pool.keys.to(self.keys), (scale * pool.coefficients).to(self.coefficients)
        self.sharpness.fill_(pool.sharpness)
        self.weights.copy_(pool.weights + pool.text_weight * scale * vectors)
        self.intercepts.copy_(pool.intercepts)
        return self

    def left_out(self, image_features: Tensor, targets: Tensor, zero_shot: ZeroShot) -> Tensor:
        """Leave out a fold after the other; see :meth:`ClosedFormResidual.left_out`."""
        left_out = fit_pool(zero_shot, image_features, targets, PoolConfig(), POOL_FOLDS).left_out
        if left_out is not None:
            return left_out
        alone = type(self)(self.n_classes, self.width).fit(image_features, targets, zero_shot)
        return alone.forward(exact_units(image_features).float()).double()

    def forward(self, unit_features: Tensor) -> Tensor:
        """Compute the logits of the pool, (B, C)."""
        return super().forward(unit_features) + unit_features @ self.weights.T + self.intercepts


KINDS: dict[Residual, type[DiscriminantResidual] | type[KernelResidual]] = {
    "gda": DiscriminantResidual,
    "proker": KernelResidual,
    "pool": PoolResidual,
}


def build_residual(kind: Residual, n_classes: int, width: int) -> ClosedFormResidual:
    """Build an unfitted residual for features of length ``width``."""
    return KINDS[kind](n_classes, width)
