"""What a class looked at in an image, as one feature: patches weighed by the transport plan's mass on them."""

from __future__ import annotations

import torch
from torch import Tensor

from sotglp.methods.base import AdaptedModel, Outputs, full_precision
from sotglp.transport.plans import class_mass


@torch.no_grad()
def region_features(model: AdaptedModel, patch_tokens: Tensor, outputs: Outputs, classes: Tensor) -> Tensor:
    """Mean patch of each image, weighed by the mass that one class's plan puts on it.

    Patches are those of the frozen backbone, in the joint space and of unit length: a learned projection may turn
    away from what makes images differ. A model without local prompts has no plan, and weighs all patches alike.

    Parameters
    ----------
    model : AdaptedModel
        The model that compared the images with its classes.
    patch_tokens : Tensor
        From :meth:`Backbone.encode_image`, (B, P, W).
    outputs : Outputs
        What the model said of the images.
    classes : Tensor
        The class to look at for each image, (B,).

    Returns
    -------
    Tensor
        (B, d), float32.
    """
    patches = model.backbone.project_patches(full_precision(patch_tokens))
    patches = torch.nn.functional.normalize(full_precision(patches), dim=-1)
    if outputs.plan is None or outputs.support is None:
        return patches.mean(dim=1)
    mass = class_mass(outputs.plan, outputs.support, classes, patches.shape[1])
    return torch.einsum("bp,bpd->bd", mass.sum(dim=-1), patches)
