"""The detectors of pytorch-ood that apply to image features, logits and a linear head, on the same features as ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import pytorch_ood.detector as detectors
import torch
from torch import Tensor, nn

from ood_models import Linear, Seen

PEER = "pytorch-ood "

Score = Callable[[Seen], Tensor]
"""Scores (n,), larger for known images."""


class Candidate(NamedTuple):
    """A detector with one choice of its parameters, and how it is fitted."""

    detector: str
    parameters: str
    fit: Callable[[], Score]

    @property
    def key(self) -> str:
        """Name of its results."""
        return f"{self.detector}|{self.parameters}"


class Fitting(NamedTuple):
    """What detectors are fitted on: shots, their class indices (n,), and the linear part of the model's logits."""

    shots: Seen
    classes: Tensor
    linear: Linear


def with_span(found: Fitting) -> tuple[Fitting, Score]:
    """Return the same in coordinates of the span of shots and head, and how images are written in them.

    A last coordinate is the length of the part outside of the span. It is a rotation of the shots, and detectors that
    treat all directions outside alike give the same scores (to rounding) in a tenth of the time.
    """
    rows = torch.cat([found.shots.features, found.linear.weights])
    basis = torch.linalg.qr(rows.double().T).Q

    def written(features: Tensor) -> Tensor:
        inside = features.double() @ basis
        outside = (features.double() - inside @ basis.T).norm(dim=1, keepdim=True)
        return torch.cat([inside, outside], dim=1).float()

    shots = found.shots._replace(features=written(found.shots.features))
    linear = found.linear._replace(weights=written(found.linear.weights))
    return Fitting(shots, found.classes, linear), lambda images: written(images.features)


def grid(spaces: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All choices of parameters, each with its name; the first of all is the default."""
    for values in product(*spaces.values()):
        chosen = dict(zip(spaces, values, strict=True))
        yield ", ".join(f"{name}={value}" for name, value in chosen.items()), chosen


def up_to(most: int, *values: int) -> list[int]:
    """Those of the values that are at most ``most``, or ``most`` alone."""
    return [value for value in values if value <= most] or [most]


def peer_candidates(found: Fitting) -> list[Candidate]:
    """Detectors with all parameters that are compared, the default first.

    They are the search space of pytorch-ood (``hyperparameter_space``), and smaller numbers of neighbours, dimensions
    and tails where it is made for more images than there are shots. For energies, where it has none, temperatures; for
    GMM, ridges.
    """
    n, n_classes = len(found.classes), len(found.linear.bias)
    smallest = int(torch.bincount(found.classes).min())
    head = nn.Linear(found.linear.weights.shape[1], n_classes)
    with torch.no_grad():
        head.weight.copy_(found.linear.weights)
        head.bias.copy_(found.linear.bias)
    maps = nn.Sequential(nn.Flatten(), head)
    vectors, bias = found.linear.weights, found.linear.bias
    spanned, written = with_span(found)

    def on_logits(make: Callable[..., Any]) -> Callable[..., Score]:
        def fit(**chosen: Any) -> Score:
            detector = make(None, **chosen)
            if hasattr(detector, "fit_logits"):
                detector.fit_logits(found.shots.logits, found.classes)
            return lambda images: detector.predict_logits(images.logits)

        return fit

    def on_features(make: Callable[..., Any]) -> Callable[..., Score]:
        def fit(**chosen: Any) -> Score:
            detector = make(None, **chosen)
            if hasattr(detector, "fit_features"):
                detector.fit_features(found.shots.features, found.classes)
            return lambda images: detector.predict_features(images.features)

        return fit

    def on_span(make: Callable[..., Any]) -> Callable[..., Score]:
        def fit(**chosen: Any) -> Score:
            detector = make(None, **chosen)
            detector.fit_features(spanned.shots.features, found.classes)
            return lambda images: detector.predict_features(written(images))

        return fit

    def on_maps(make: Callable[..., Any]) -> Callable[..., Score]:
        def fit(**chosen: Any) -> Score:
            detector = make(None, maps, **chosen)
            if hasattr(detector, "fit_feature_maps"):
                detector.fit_feature_maps(found.shots.features[:, :, None, None], found.classes)
            return lambda images: detector.predict_feature_maps(images.features[:, :, None, None])

        return fit

    shares = (0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
    d = detectors
    table: dict[str, tuple[Callable[..., Score], Mapping[str, Sequence[Any]]]] = {
        "MaxSoftmax": (on_logits(d.MaxSoftmax), {}),
        "MaxLogit": (on_logits(d.MaxLogit), {}),
        "EnergyBased": (on_logits(d.EnergyBased), {"t": (1.0, 0.3, 3.0, 10.0)}),
        "Entropy": (on_logits(d.Entropy), {}),
        "GEN": (on_logits(d.GEN), {"gamma": (0.1, 0.01, 0.5, 1, 2, 5, 10), "M": (None, 10)}),
        "TemperatureScaling": (on_logits(d.TemperatureScaling), {}),
        "KLMatching": (on_logits(d.KLMatching), {}),
        "OpenMax": (
            on_logits(d.OpenMax),
            {
                "tailsize": up_to(n, 25, 10),
                "alpha": up_to(n_classes, 10, 3),
                "euclid_weight": (1.0, 0.5),
            },
        ),
        "MCM": (
            lambda **chosen: (
                lambda images: d.MCM(None, found.linear.prompts, **chosen).predict_features(images.features)
            ),
            {"temperature": (1.0, 0.1, 0.01)},
        ),
        "KNN": (on_features(d.KNN), {"k": up_to(n, 10, 1, 2, 5, 20, 50, 100, 200)}),
        "Mahalanobis": (on_span(d.Mahalanobis), {}),
        "RMD": (on_span(d.RMD), {}),
        "GMM": (on_span(d.GMM), {"reg": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)}),
        "SHE": (on_features(lambda _: d.SHE(None, head)), {}),
        "ViM": (
            on_span(lambda _, **chosen: d.ViM(None, w=spanned.linear.weights, b=bias, **chosen)),
            {"d": up_to(n - 1, 16, 8, 32, 64, 128, 256)},
        ),
        "NNGuide": (on_features(lambda _, **chosen: d.NNGuide(None, head, **chosen)), {"k": up_to(n, 10, 1, 2, 5, 50)}),
        "fDBD": (on_features(lambda _: d.fDBD(None, head)), {}),
        "NCI": (
            on_features(lambda _, **chosen: d.NCI(None, head, **chosen)),
            {"alpha": (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)},
        ),
        "pNML": (on_features(lambda _: d.PNML(None, head)), {}),
        "DICE": (
            on_features(lambda _, **chosen: d.DICE(None, vectors, bias, **chosen)),
            {"p": (0.7, 0.1, 0.3, 0.5, 0.9)},
        ),
        "LTS": (on_features(lambda _, **chosen: d.LTS(None, head, **chosen)), {"p": (0.05, 0.01, 0.1, 0.2)}),
        "GradNorm": (
            lambda **chosen: lambda images: d.GradNorm(head, **chosen).to("cpu").predict(images.features),
            {"temperature": (1.0, 3.0, 0.3)},
        ),
        "ReAct": (on_maps(d.ReAct), {"percentile": (0.9, 0.85, 0.95, 0.99)}),
        "VRA": (
            on_maps(d.VRA),
            {"lower_percentile": (0.01, 0.05, 0.1, 0.15), "upper_percentile": (0.99, 0.95, 0.9, 0.85)},
        ),
        **{
            f"ASH-{variant.upper()}": (
                on_maps(lambda _, maps, variant=variant, **own: d.ASH(None, maps, variant=f"ash-{variant}", **own)),
                {"percentile": shares},
            )
            for variant in ("s", "p", "b")
        },
        "SCALE": (on_maps(d.SCALE), {"percentile": shares}),
    }
    return [
        Candidate(PEER + name, parameters, lambda fit=fit, chosen=chosen: outward(fit(**chosen)))
        for name, (fit, space) in table.items()
        for parameters, chosen in grid(space)
        if smallest > 1 or name != "KLMatching"
    ]


def outward(score: Score) -> Score:
    """Negate a score of pytorch-ood, which is larger for unknown images."""
    return lambda images: -score(images)
