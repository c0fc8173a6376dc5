"""ProKeR: kernel ridge regression of what zero-shot CLIP lacks on the shots; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError
from sotglp.methods.base import exact_units
from sotglp.methods.configs import ProkerConfig
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings

SHARPNESSES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

DEFAULT_SHARPNESS, DEFAULT_RIDGE = 1.0, 0.1
"""Values if a class has a single shot, so that none can be left out; from four sets of photos."""

MOST_LEFT_OUT = 2048
"""Shots that sharpness and ridge are chosen on; the time grows with the cube of their number."""


class ProKeR(ZeroShot):
    """Adds to the zero-shot cosines a kernel ridge regression of their difference from one-hot labels.

    The kernel of unit features is exp(-sharpness (1 - cosine)). ``keys`` (n, d) are the unit features of the shots,
    ``coefficients`` (C, n) those of the regression and ``kernel_sharpness`` a scalar; there are no keys before
    :meth:`fit_features`. See Bendou et al., "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large
    Vision-Language Models", CVPR 2025, arXiv 2501.11175.

    The authors choose sharpness and ridge on validation images. Here they are chosen by leaving out one shot after the
    other, unless they are set; both grids are ours. The authors' code multiplies the coefficients by the ridge,
    which is not done here. The regression's targets are 0 and 1 as in that code, so that its logits are sharp:
    calibrate the temperature where probabilities matter.
    """

    kind: ClassVar[str] = "proker"
    Config: ClassVar[type[Settings]] = ProkerConfig
    kept: ClassVar[tuple[str, ...]] = ("keys", "coefficients", "kernel_sharpness")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.register_buffer("keys", self.class_vectors.new_empty(0, backbone.embed_dim))
        self.register_buffer("coefficients", self.class_vectors.new_empty(len(self.class_names), 0))
        self.register_buffer("kernel_sharpness", self.class_vectors.new_ones(()))
        self.keys: Tensor
        self.coefficients: Tensor
        self.kernel_sharpness: Tensor

    @property
    def class_rows(self) -> tuple[str, ...]:
        """The coefficients."""
        return ("coefficients",)

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Fit the regression on features (n, d) and class indices (n,), and choose sharpness and ridge."""
        keys, targets = exact_units(image_features), targets.cpu()
        zero_shot = keys @ self.class_vectors.double().cpu().T
        labels = F.one_hot(targets, len(self.class_names)).double()
        sharpness, ridge = choose_kernel(keys, targets, zero_shot, self.config.sharpness, self.config.ridge)
        coefficients = solve_ridge(keys, labels - zero_shot, sharpness, ridge)
        self.keys, self.coefficients = keys.to(self.class_vectors), coefficients.to(self.class_vectors)
        self.kernel_sharpness.fill_(sharpness)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a model file, with any number of keys; see :meth:`AdaptedModel.restore`."""
        keys, coefficients, sharpness = (tensors.get(name, torch.empty(0, 0)) for name in ProKeR.kept)
        fits = keys.ndim == 2 and keys.shape[1] == self.backbone.embed_dim and sharpness.ndim == 0
        fits = fits and coefficients.shape == (len(self.class_names), len(keys))
        if not (fits and all(tensor.is_floating_point() for tensor in (keys, coefficients, sharpness))):
            raise SotglpError("its keys and coefficients do not fit each other, the backbone or the classes")
        self.keys, self.coefficients = keys.to(self.class_vectors), coefficients.to(self.class_vectors)
        self.kernel_sharpness = sharpness.to(self.class_vectors)

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Add the regression of the residual to the cosines, (B, C)."""
        return image @ vectors.T + kernel_of(image @ self.keys.T, self.kernel_sharpness) @ self.coefficients.T


def kernel_of(cosines: Tensor, sharpness: float | Tensor) -> Tensor:
    """Kernel of unit features with these cosines."""
    return torch.exp(-sharpness * (1 - cosines))


def solve_ridge(keys: Tensor, targets: Tensor, sharpness: float, ridge: float) -> Tensor:
    """Solve the kernel ridge regression of targets (n, C) on unit keys (n, d): coefficients, (C, n)."""
    kernel = kernel_of(keys @ keys.T, sharpness)
    kernel.diagonal().add_(ridge)
    return torch.cholesky_solve(targets, torch.linalg.cholesky(kernel)).T.contiguous()


def choose_kernel(
    keys: Tensor, classes: Tensor, zero_shot: Tensor, sharpness: float | None = None, ridge: float | None = None
) -> tuple[float, float]:
    """Choose sharpness and ridge, where they are None, with the most shots correct when left out.

    ``keys`` are the unit features of the shots, (n, d), ``classes`` (n,) and ``zero_shot`` their cosines, (n, C). The
    residual of a left-out shot has a closed form: its coefficient, divided by its diagonal entry of the inverse of
    kernel plus ridge. The squared error breaks ties. Returns the defaults if a class has a single shot.
    """
    sharpnesses = SHARPNESSES if sharpness is None else (sharpness,)
    ridges = RIDGES if ridge is None else (ridge,)
    if len(sharpnesses) * len(ridges) == 1:
        return sharpnesses[0], ridges[0]
    counts = torch.bincount(classes)
    if counts[counts > 0].min() < 2:
        return (
            DEFAULT_SHARPNESS if sharpness is None else sharpness,
            DEFAULT_RIDGE if ridge is None else ridge,
        )
    if len(keys) > MOST_LEFT_OUT:
        order = torch.sort(classes, stable=True).indices
        chosen = order[:: -(-len(keys) // MOST_LEFT_OUT)]
        keys, classes, zero_shot = keys[chosen], classes[chosen], zero_shot[chosen]
    labels = F.one_hot(classes, zero_shot.shape[1]).double()
    best = (-1, -torch.inf)
    found = DEFAULT_SHARPNESS, DEFAULT_RIDGE
    for beta in sharpnesses:
        values, vectors = torch.linalg.eigh(kernel_of(keys @ keys.T, beta))
        turned, squares = vectors.T @ (labels - zero_shot), vectors.square()
        for penalty in ridges:
            inverse = 1 / (values.clamp(min=0) + penalty)
            errors = vectors @ (inverse[:, None] * turned) / (squares @ inverse)[:, None]
            n_correct = int(((labels - errors).argmax(dim=1) == classes).sum())
            merit = (n_correct, -errors.square().sum().item())
            if merit > best:
                best, found = merit, (beta, penalty)
    return found
