"""OOD scores; larger means more in-distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sotglp.errors import SotglpError, UnknownNameError
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import AdaptedModel, Outputs
from sotglp.methods.shot_features import region_features
from sotglp.methods.shot_memory import ShotMemory
from sotglp.scoring.arrays import check_temperature
from sotglp.settings import OodMethod


class Evidence(NamedTuple):
    """What the scores of B images are computed from; ``model`` and ``encoded`` are empty if only outputs are given."""

    outputs: Outputs
    model: AdaptedModel | None = None
    encoded: EncodedImages = EncodedImages(torch.empty(0), torch.empty(0))


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
        - ``knn``, ``mahalanobis``: similarity of the image feature to those of the shots; see
          :class:`sotglp.methods.shot_memory.ShotMemory`.
        - ``transport``: ``mahalanobis``, plus the same for the patches that the transport plan of the predicted class
          selects; see :mod:`sotglp.methods.shot_features`.
    temperature : float, default 1.0
        Cosines, or logits, are divided by it before a softmax; from 1e-6 to 1e6. ``max-logit``, ``knn``,
        ``mahalanobis`` and ``transport`` ignore it.

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
    arXiv 2010.03759; k nearest neighbours, arXiv 2204.06507; Mahalanobis, arXiv 1807.03888; SOT-GLP, arXiv 2603.08347,
    section on OOD detection.
    """
    if isinstance(model_or_outputs, Outputs):
        return score_evidence(Evidence(model_or_outputs), method, temperature)
    if images is None:
        raise SotglpError("a model needs images to score: give images, or the outputs of the model")
    encoded = EncodedImages(*model_or_outputs.backbone.encode_image(images))
    outputs = model_or_outputs.compare(encoded, model_or_outputs.encode_text())
    return score_evidence(Evidence(outputs, model_or_outputs, encoded), method, temperature)


def score_evidence(evidence: Evidence, method: OodMethod, temperature: float) -> Tensor:
    """Compute the OOD scores of B images, (B,); see :func:`score`."""
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


def _transport(evidence: Evidence, temperature: float) -> Tensor:
    predicted = _logits(evidence).argmax(dim=-1)
    regions = region_features(_model(evidence), evidence.encoded, evidence.outputs, predicted)
    return _mahalanobis(evidence, temperature) + _shots(evidence).mahalanobis_of_regions(regions)


SCORES: dict[str, Callable[[Evidence, float], Tensor]] = {
    "mcm": _mcm,
    "l-mcm": _local_mcm,
    "gl-mcm": lambda evidence, temperature: _mcm(evidence, temperature) + _local_mcm(evidence, temperature),
    "msp": lambda evidence, temperature: _largest_softmax(_logits(evidence), temperature),
    "max-logit": lambda evidence, temperature: _logits(evidence).amax(dim=-1),
    "energy": lambda evidence, temperature: temperature * torch.logsumexp(_logits(evidence) / temperature, dim=-1),
    "margin": _margin,
    "entropy": _negative_entropy,
    "knn": lambda evidence, temperature: _shots(evidence).nearest(evidence.encoded.image_features),
    "mahalanobis": _mahalanobis,
    "transport": _transport,
}
"""All scores by name, in the order of tables."""
