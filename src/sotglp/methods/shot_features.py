"""Features of labelled images, and of the regions that the transport plan selects in them: the memory of a model."""

from __future__ import annotations

import torch
from torch import Tensor

from sotglp.backbone.precision import autocast
from sotglp.features.encode import encode_images
from sotglp.features.rows import EncodedImages
from sotglp.features.view_cache import CacheDir
from sotglp.images.image_set import ImageSet
from sotglp.images.stored import StoredImage
from sotglp.methods.base import AdaptedModel, Outputs, unit_patches
from sotglp.methods.shot_memory import ShotMemory, unit_features
from sotglp.methods.shot_patches import ShotPatches, chosen_rows
from sotglp.settings import InferenceConfig
from sotglp.transport.plans import class_mass


@torch.no_grad()
def build_shot_memory(
    model: AdaptedModel, images: ImageSet, inference: InferenceConfig, *, cache_dir: CacheDir = None
) -> ShotMemory:
    """Compute the features of labelled images and of the regions that their own classes select.

    Their patch tokens are kept too, as far as :data:`sotglp.methods.shot_patches.MAX_BYTES` allows, unless the model
    changes the image tower, since they are kept to train another model on.
    """
    targets = torch.from_numpy(images.targets(model.class_names))
    device = model.backbone.device
    with autocast(device, inference.precision):
        text = model.eval().encode_text()
    n_values = model.backbone.n_patches * model.backbone.patch_width
    stored = set() if model.backbone.adapts_images else set(chosen_rows(targets, n_values))
    features, regions, patches = [], [], []
    for indices, encoded in encode_images(model.backbone, images, inference, cache_dir):
        # Rounded as in a cache, so that the memory is the same with and without one.
        encoded = encoded.rounded()
        own = [place for place, row in enumerate(indices.tolist()) if row in stored]
        if own:
            patches.append(ShotPatches.quantised(indices[own].tolist(), encoded.patch_tokens[own]))
        encoded = encoded.to(device)
        outputs = model.compare(encoded, text)
        features.append(unit_features(encoded.image_features))
        regions.append(unit_features(region_features(model, encoded, outputs, targets[indices].to(device))))
    whole = ShotPatches(*map(torch.cat, zip(*patches, strict=True))) if patches else None
    return ShotMemory(torch.cat(features), torch.cat(regions), targets, whole)


def stored_shots(model: AdaptedModel) -> ImageSet | None:
    """Return the labelled shots of a model whose patches it stores, in their order; None if there are none."""
    memory = model.shots
    if memory is None or memory.patches is None:
        return None
    rows = memory.patches.rows.tolist()
    images = tuple(StoredImage(memory.features[row], memory.patches.tokens(i)) for i, row in enumerate(rows))
    return ImageSet(
        images, tuple(model.class_names[index] for index in memory.classes[rows].tolist()), ranges=model.value_ranges
    )


@torch.no_grad()
def region_features(model: AdaptedModel, encoded: EncodedImages, outputs: Outputs, classes: Tensor) -> Tensor:
    """Compute the mean patch of each image, weighted by the mass of the plan of one class, ``classes`` (B,); (B, d).

    Patches come from the frozen backbone, in the joint space and of unit length, since a learned projection may remove
    differences between images. Without a plan all patches have the same weight.
    """
    patches = unit_patches(model.backbone, encoded)
    if outputs.plan is None or outputs.support is None:
        return patches.mean(dim=1)
    mass = class_mass(outputs.plan, outputs.support, classes, patches.shape[1])
    return torch.einsum("bp,bpd->bd", mass.sum(dim=-1), patches)
