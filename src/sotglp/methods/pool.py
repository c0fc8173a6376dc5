"""Pool of GDA, ProKeR and a linear probe: the geometric mean of their probabilities; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.images.few_shot import deal_folds
from sotglp.methods.base import AdaptedModel, check_every_class, exact_units
from sotglp.methods.configs import PoolConfig
from sotglp.methods.gda import choose_weight, shared_covariance_discriminant
from sotglp.methods.linear_probe import fit_regression
from sotglp.methods.proker import ProKeR, choose_kernel, kernel_of, solve_ridge
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings

MOST_FOLDS = 3

LOG_RANGE = 5.0
"""Largest logarithm of a temperature, up or down."""

DEFAULT_TEMPERATURES = (2.8, 1.0, 0.5)
"""Temperatures if a class has a single shot: medians at four shots on nine sets of photos."""


class Pool(ProKeR):
    """Averages the log-probabilities of GDA, ProKeR and a linear probe, each at its own temperature; ours.

    Up to a constant of each image, log-probabilities are logits over a temperature. The average is therefore one linear
    map, ``weights`` (C, d) and ``intercepts`` (C,), plus ``text_weight`` times the cosines with the text features, plus
    ProKeR's regression on ``keys`` with ``coefficients``. Temperatures have the least cross entropy on held-out folds
    of the shots; settings of the members are chosen as in those methods, on all shots. Before :meth:`fit_features` this
    is zero-shot CLIP.
    """

    kind: ClassVar[str] = "pool"
    Config: ClassVar[type[Settings]] = PoolConfig
    kept: ClassVar[tuple[str, ...]] = (*ProKeR.kept, "weights", "intercepts", "text_weight")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.register_buffer("weights", torch.zeros_like(self.class_vectors))
        self.register_buffer("intercepts", self.class_vectors.new_zeros(len(self.class_names)))
        self.register_buffer("text_weight", self.class_vectors.new_ones(()))
        self.weights: Tensor
        self.intercepts: Tensor
        self.text_weight: Tensor

    @property
    def class_rows(self) -> tuple[str, ...]:
        """Coefficients, weights and intercepts."""
        return ("coefficients", "weights", "intercepts")

    def fit_features(self, image_features: Tensor, targets: Tensor) -> None:
        """Fit all members to features (n, d) and class indices (n,), and their temperatures.

        Raise a SotglpError if a class has no features.
        """
        check_every_class(self, targets)
        fit = fit_pool(self, image_features, targets, self.config, MOST_FOLDS)
        self.keys = fit.keys.to(self.class_vectors)
        self.coefficients = fit.coefficients.to(self.class_vectors)
        self.kernel_sharpness.fill_(fit.sharpness)
        self.weights.copy_(fit.weights)
        self.intercepts.copy_(fit.intercepts)
        self.text_weight.fill_(fit.text_weight)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a model file, with any number of keys; see :meth:`AdaptedModel.restore`."""
        super().restore(tensors)
        AdaptedModel.restore(self, tensors)

    def class_logits(self, image: Tensor, vectors: Tensor) -> Tensor:
        """Compute the averages, divided by the backbone's scale, (B, C)."""
        regression = kernel_of(image @ self.keys.T, self.kernel_sharpness) @ self.coefficients.T
        linear = (image @ self.weights.T + self.intercepts) / self.backbone.logit_scale
        return self.text_weight * (image @ vectors.T) + regression + linear


class PoolFit(NamedTuple):
    """A pool of n shots: logits are s (text_weight cosine + kernel regression) + weights f + intercepts.

    Attributes
    ----------
    keys, coefficients, sharpness
        The regression: unit features (n, d), (C, n), and the decay of its kernel.
    weights, intercepts, text_weight
        (C, d), (C,), and the factor of the cosines with the text features.
    left_out : Tensor or None
        Logits of each shot by members that were fitted on other folds, (n, C); None if a class has a single shot.
    """

    keys: Tensor
    coefficients: Tensor
    sharpness: float
    weights: Tensor
    intercepts: Tensor
    text_weight: float
    left_out: Tensor | None


def fit_pool(
    zero_shot: ZeroShot, image_features: Tensor, targets: Tensor, config: PoolConfig, most_folds: int
) -> PoolFit:
    """Fit GDA, ProKeR and the probe to features (n, d) and class indices (n,), beside the cosines of ``zero_shot``.

    Temperatures are chosen on at most ``most_folds`` folds.
    """
    features, targets = exact_units(image_features), targets.cpu()
    n_classes = len(zero_shot.class_names)
    scale = float(zero_shot.backbone.logit_scale)
    cosines = features @ zero_shot.class_vectors.double().cpu().T
    alpha = config.fusion_weight
    if alpha is None:
        alpha = choose_weight(features, targets, scale * cosines)
    sharpness, ridge = choose_kernel(features, targets, cosines, config.sharpness, config.ridge)
    labels = F.one_hot(targets, n_classes).double()

    def members(own: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, tuple[Tensor, Tensor]]:
        """Discriminant, coefficients and regression of the shots with these indices."""
        shots, classes = features[own], targets[own]
        discriminant = shared_covariance_discriminant(shots, classes, n_classes)
        coefficients = solve_ridge(shots, labels[own] - cosines[own], sharpness, ridge)
        return discriminant, coefficients, fit_regression(shots, classes, config.inverse_regularisation)

    temperatures: tuple[float, ...] = DEFAULT_TEMPERATURES
    left_out = None
    folds = torch.from_numpy(deal_folds(targets.numpy(), most_folds))
    if folds.any():
        logits = labels.new_empty(3, *labels.shape)
        for fold in range(int(folds.max()) + 1):
            rest, own = (torch.nonzero(mask)[:, 0] for mask in (folds != fold, folds == fold))
            (weights, intercepts), coefficients, (probe, bias) = members(rest)
            kernel = kernel_of(features[own] @ features[rest].T, sharpness)
            logits[0, own] = scale * cosines[own] + alpha * (features[own] @ weights.T + intercepts)
            logits[1, own] = scale * (cosines[own] + kernel @ coefficients.T)
            logits[2, own] = features[own] @ probe.T + bias
        temperatures = tuple(best_temperature(member, targets) for member in logits)
        left_out = (logits / (3 * logits.new_tensor(temperatures))[:, None, None]).sum(dim=0)
    of_discriminant, of_kernel, of_probe = (1 / (3 * temperature) for temperature in temperatures)
    (weights, intercepts), coefficients, (probe, bias) = members(torch.arange(len(features)))
    return PoolFit(
        keys=features,
        coefficients=of_kernel * coefficients,
        sharpness=sharpness,
        weights=of_discriminant * alpha * weights + of_probe * probe,
        intercepts=of_discriminant * alpha * intercepts + of_probe * bias,
        text_weight=of_discriminant + of_kernel,
        left_out=left_out,
    )


def best_temperature(logits: Tensor, classes: Tensor) -> float:
    """Return the temperature with the least cross entropy of logits (n, C) for classes (n,)."""

    def entropy(logarithm: float) -> float:
        return F.cross_entropy(logits * float(torch.tensor(-logarithm).exp()), classes).item()

    from scipy.optimize import minimize_scalar  # predictions do without it

    found = minimize_scalar(entropy, bounds=(-LOG_RANGE, LOG_RANGE), method="bounded")
    return float(torch.tensor(found.x).exp())
