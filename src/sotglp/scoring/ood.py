"""OOD scores; larger means more in-distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.errors import SotglpError, UnknownNameError
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import AdaptedModel, Outputs
from sotglp.methods.shot_features import region_features
from sotglp.methods.shot_memory import ShotMemory
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring.arrays import check_temperature
from sotglp.scoring.negative_labels import class_and_negative_features, negative_score
from sotglp.settings import OodMethod, noted_score

GEN_POWER, GEN_CLASSES = 0.1, 100
"""Gamma and M of GEN, as published."""

ASH_PRUNED = 0.65
"""Share of the image feature's values, the smallest, that ASH sets to zero: the least that its authors try."""

VIM_SHOTS = 1000
"""Most shots that the scale of ViM's residual is computed from."""


class Evidence(NamedTuple):
    """What the scores of B images are computed from; all else is empty if only outputs are given."""

    outputs: Outputs
    model: AdaptedModel | None = None
    encoded: EncodedImages = EncodedImages(torch.empty(0), torch.empty(0))
    text: TextFeatures | None = None


@torch.no_grad()
def score(
    model_or_outputs: AdaptedModel | Outputs,
    images: Tensor | None = None,
    method: OodMethod = "gl-mcm",
    temperature: float = 1.0,
) -> Tensor:
    """Compute OOD scores of images; larger is more in-distribution.

    Parameters
    ----------
    model_or_outputs : SOTGLP, another model of the library, or Outputs
        A model together with ``images``, or its outputs for them, which suffice for ``mcm``, ``l-mcm`` and ``gl-mcm``.
    images : Tensor or None
        Preprocessed images, (B, 3, H, W), if a model is given.
    method : str, default "gl-mcm"
        - ``mcm``: largest softmax of global cosines; ``l-mcm``: largest softmax over all patches of their mean local
          cosines; ``gl-mcm``: the sum of both.
        - ``msp``, ``margin``, ``entropy``: the largest class probability, its difference from the second, and the
          negative entropy in nats.
        - ``max-logit``, ``energy``: the largest class logit, and temperature times log-sum-exp of the logits over the
          temperature.
        - ``gen``: negative sum of p^0.1 (1 - p)^0.1 over the 100 largest class probabilities.
        - ``ash``, ``react``: ``energy`` of the global branch, after all but the largest 35 % of the image feature's
          values are set to zero, or values beyond the shots' 90 % quantile are clipped.
        - ``vim``: energy of the global branch, less the length of the image feature outside of the shots' principal
          space, scaled so that it is as large as the largest logit on the shots.
        - ``she``, ``knn``, ``mahalanobis``, ``subspace``: similarity of the image feature to those of the shots; see
          :class:`sotglp.methods.shot_memory.ShotMemory`.
        - ``mahalanobis-patches``: ``mahalanobis``, plus the same for the mean patch, weighted by the transport plan of
          the predicted class if the model has one; see :mod:`sotglp.methods.shot_features`. Formerly ``transport``.
        - ``neglabel``: softmax share of the class names among names of other things, by the image feature; see
          :mod:`sotglp.scoring.negative_labels`.
    temperature : float, default 1.0
        Cosines, or logits, are divided by it before a softmax, and energies are those at this temperature; from 1e-6 to
        1e6. ``max-logit``, ``vim`` and scores that only use features ignore it.

    Returns
    -------
    Tensor
        (B,).

    Raises
    ------
    SotglpError
        If the method is unknown, the temperature is out of range, a model comes without images, or the model lacks
        what the score needs.

    References
    ----------
    MCM, arXiv 2211.13445; GL-MCM, arXiv 2304.04521; MSP, arXiv 1610.02136; max-logit, arXiv 1911.11132; energy,
    arXiv 2010.03759; GEN, CVPR 2023; ASH (variant P), arXiv 2209.09858; ReAct, arXiv 2111.12797; ViM,
    arXiv 2203.10807; SHE, ICLR 2023; k nearest neighbours, arXiv 2204.06507; Mahalanobis, arXiv 1807.03888; SOT-GLP,
    arXiv 2603.08347, section on OOD detection; NegLabel, arXiv 2403.20078.
    """
    if isinstance(model_or_outputs, Outputs):
        return score_evidence(Evidence(model_or_outputs), method, temperature)
    if images is None:
        raise SotglpError("a model needs images to score: give images, or the outputs of the model")
    encoded = EncodedImages(*model_or_outputs.backbone.encode_image(images))
    text = model_or_outputs.encode_text()
    outputs = model_or_outputs.compare(encoded, text)
    return score_evidence(Evidence(outputs, model_or_outputs, encoded, text), method, temperature)


def score_evidence(evidence: Evidence, method: OodMethod, temperature: float) -> Tensor:
    """Compute the OOD scores of B images, (B,); see :func:`score`."""
    method = noted_score(method)
    if method not in SCORES:
        raise UnknownNameError("OOD score", method, SCORES)
    check_temperature(temperature)
    return SCORES[method](evidence, temperature)


def _largest_softmax(values: Tensor, temperature: float) -> Tensor:
    """Largest softmax over the last axis."""
    return torch.softmax(values.float() / temperature, dim=-1).amax(dim=-1)


def _mcm(evidence: Evidence, temperature: float) -> Tensor:
    return _largest_softmax(evidence.outputs.global_logits, temperature)


def _local_mcm(evidence: Evidence, temperature: float) -> Tensor:
    return _largest_softmax(evidence.outputs.patch_logits, temperature).amax(dim=-1)


def _logits(evidence: Evidence) -> Tensor:
    return _model(evidence).logits(evidence.outputs).float()


def _model(evidence: Evidence) -> AdaptedModel:
    if evidence.model is None:
        raise SotglpError("this OOD score needs more than the outputs of a model: give the model and images")
    return evidence.model


def _margin(evidence: Evidence, temperature: float) -> Tensor:
    best = torch.softmax(_logits(evidence) / temperature, dim=-1).topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def _negative_entropy(evidence: Evidence, temperature: float) -> Tensor:
    scaled = _logits(evidence) / temperature
    return (scaled.softmax(dim=-1) * scaled.log_softmax(dim=-1)).sum(dim=-1)


def _shots(evidence: Evidence) -> ShotMemory:
    shots = _model(evidence).shots
    if shots is None:
        raise SotglpError(
            "this OOD score compares images with the shots, whose features the model doesn't store: fit it with "
            "remember=true, or choose another score"
        )
    return shots


def _mahalanobis(evidence: Evidence, temperature: float) -> Tensor:
    return _shots(evidence).mahalanobis(evidence.encoded.image_features)


def _energy(logits: Tensor, temperature: float) -> Tensor:
    return temperature * torch.logsumexp(logits / temperature, dim=-1)


def _generalised_entropy(evidence: Evidence, temperature: float) -> Tensor:
    largest = _logits(evidence) / temperature
    n_largest = min(GEN_CLASSES, largest.shape[-1])
    probabilities = largest.softmax(dim=-1).topk(n_largest, dim=-1).values.clamp(1e-7, 1 - 1e-7)
    return -(probabilities * (1 - probabilities)).pow(GEN_POWER).sum(dim=-1)


def _global_logits(evidence: Evidence, features: Tensor) -> Tensor:
    """Logits of the global branch for unit features (n, d) in place of the images' own, (n, C)."""
    model = _model(evidence)
    text = model.encode_text() if evidence.text is None else evidence.text
    features = features.to(evidence.encoded.image_features.device)
    return model.backbone.logit_scale * model.global_cosines(features, text).float()


def _unit_image(evidence: Evidence) -> Tensor:
    _model(evidence)
    return F.normalize(evidence.encoded.image_features.float(), dim=-1)


def _ash(evidence: Evidence, temperature: float) -> Tensor:
    features = _unit_image(evidence)
    kept, places = features.topk(features.shape[1] - round(ASH_PRUNED * features.shape[1]), dim=1)
    pruned = torch.zeros_like(features).scatter(1, places, kept)
    return _energy(_global_logits(evidence, pruned), temperature)


def _react(evidence: Evidence, temperature: float) -> Tensor:
    clipped = _unit_image(evidence).clamp(max=_shots(evidence).activation_limit)
    return _energy(_global_logits(evidence, clipped), temperature)


def _vim(evidence: Evidence, temperature: float) -> Tensor:
    shots, features = _shots(evidence), _unit_image(evidence)
    some = shots.features[:: -(-len(shots.features) // VIM_SHOTS)]
    largest = _global_logits(evidence, some).amax(dim=1).mean()
    virtual = shots.residual(features) * (largest.cpu() / shots.residual(some).mean().clamp(min=1e-12))
    return _energy(_global_logits(evidence, features), 1.0).cpu() - virtual


def _she(evidence: Evidence, temperature: float) -> Tensor:
    return _shots(evidence).pattern_energy(evidence.encoded.image_features, _logits(evidence).argmax(dim=-1))


def _mahalanobis_patches(evidence: Evidence, temperature: float) -> Tensor:
    predicted = _logits(evidence).argmax(dim=-1)
    regions = region_features(_model(evidence), evidence.encoded, evidence.outputs, predicted)
    return _mahalanobis(evidence, temperature) + _shots(evidence).mahalanobis_of_regions(regions)


def _negative_labels(evidence: Evidence, temperature: float) -> Tensor:
    model, image = _model(evidence), _unit_image(evidence)
    classes, negatives = class_and_negative_features(model.backbone, model.class_names)
    scale = float(model.backbone.logit_scale) / temperature
    return negative_score(image, classes.to(image.device), negatives.to(image.device), scale)


SCORES: dict[str, Callable[[Evidence, float], Tensor]] = {
    "mcm": _mcm,
    "l-mcm": _local_mcm,
    "gl-mcm": lambda evidence, temperature: _mcm(evidence, temperature) + _local_mcm(evidence, temperature),
    "msp": lambda evidence, temperature: _largest_softmax(_logits(evidence), temperature),
    "max-logit": lambda evidence, temperature: _logits(evidence).amax(dim=-1),
    "energy": lambda evidence, temperature: _energy(_logits(evidence), temperature),
    "margin": _margin,
    "entropy": _negative_entropy,
    "gen": _generalised_entropy,
    "ash": _ash,
    "react": _react,
    "vim": _vim,
    "she": _she,
    "knn": lambda evidence, temperature: _shots(evidence).nearest(evidence.encoded.image_features),
    "mahalanobis": _mahalanobis,
    "subspace": lambda evidence, temperature: _shots(evidence).subspace(evidence.encoded.image_features),
    "mahalanobis-patches": _mahalanobis_patches,
    "neglabel": _negative_labels,
}
"""All scores by name, in the order of tables."""
