"""What a class looked at in an image, as one feature: patches weighed by the transport plan's mass on them."""

from __future__ import annotations

import torch
from torch import Tensor

from sotglp.features.encode import EncodedImages
from sotglp.methods.base import AdaptedModel, Outputs, unit_patches
from sotglp.transport.plans import class_mass


@torch.no_grad()
def region_features(model: AdaptedModel, encoded: EncodedImages, outputs: Outputs, classes: Tensor) -> Tensor:
    """Mean patch of each image, weighed by the mass that one class's plan puts on it.

    Patches are those of the frozen backbone, in the joint space and of unit length: a learned projection may turn
    away from what makes images differ. A model without local prompts has no plan, and weighs all patches alike.

    Parameters
    ----------
    model : AdaptedModel
        The model that compared the images with its classes.
    encoded : EncodedImages
        The images.
    outputs : Outputs
        What the model said of the images.
    classes : Tensor
        The class to look at for each image, (B,).

    Returns
    -------
    Tensor
        (B, d), float32.
    """
    patches = unit_patches(model.backbone, encoded)
    if outputs.plan is None or outputs.support is None:
        return patches.mean(dim=1)
    mass = class_mass(outputs.plan, outputs.support, classes, patches.shape[1])
    return torch.einsum("bp,bpd->bd", mass.sum(dim=-1), patches)
