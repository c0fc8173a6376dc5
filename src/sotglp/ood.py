"""Scores that tell in-distribution images from others; larger means more in-distribution."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from sotglp.adapted import AdaptedModel, Outputs
from sotglp.config import OodMethod
from sotglp.errors import SotglpError


@torch.no_grad()
def score(
    model_or_outputs: AdaptedModel | Outputs,
    images: Tensor | None = None,
    method: OodMethod = "gl-mcm",
    temperature: float = 1.0,
) -> Tensor:
    """Score images by how surely they belong to one of the classes; larger is more in-distribution.

    Parameters
    ----------
    model_or_outputs : SOTGLP, another model of the library, or Outputs
        A model together with ``images``, or what a model gave for them.
    images : Tensor or None
        Preprocessed images, (B, 3, H, W), where a model is given.
    method : {"mcm", "l-mcm", "gl-mcm"}, default "gl-mcm"
        ``mcm``: largest softmax of global cosines. ``l-mcm``: largest softmax over all patches of their mean local
        cosines. ``gl-mcm``: the sum of both.
    temperature : float, default 1.0
        Cosines are divided by it before the softmax.

    Returns
    -------
    Tensor
        (B,).

    Raises
    ------
    SotglpError
        For an unknown method, a temperature that is not positive, or a model without images.

    References
    ----------
    MCM, arXiv 2211.13445; GL-MCM, arXiv 2304.04521; SOT-GLP, arXiv 2603.08347, section on OOD detection.
    """
    if method not in get_args(OodMethod):
        raise SotglpError(f"there is no OOD score {method!r}: choose one of {', '.join(get_args(OodMethod))}")
    if not temperature > 0:
        raise SotglpError(f"temperature = {temperature} must be above 0")
    if isinstance(model_or_outputs, AdaptedModel):
        if images is None:
            raise SotglpError("a model needs images to score: give them too, or the model's outputs")
        outputs: Outputs = model_or_outputs(images)
    else:
        outputs = model_or_outputs
    if method == "mcm":
        return _global_score(outputs, temperature)
    if method == "l-mcm":
        return _local_score(outputs, temperature)
    return _global_score(outputs, temperature) + _local_score(outputs, temperature)


def _global_score(outputs: Outputs, temperature: float) -> Tensor:
    return torch.softmax(outputs.global_logits.float() / temperature, dim=-1).amax(dim=-1)


def _local_score(outputs: Outputs, temperature: float) -> Tensor:
    return torch.softmax(outputs.patch_logits.float() / temperature, dim=-1).amax(dim=(-2, -1))
