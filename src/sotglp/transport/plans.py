"""Statistics of transport plans: the mass on each patch, and how the local prompts of a class share the patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_mass(plan: Tensor, support: Tensor, n_patches: int) -> Tensor:
    """Sum the mass of a plan over each patch of an image and each prompt, (B, C, P, N); 0 off the support.

    Parameters
    ----------
    plan, support : Tensor
        From :meth:`sotglp.SOTGLP.transport`: (B, C, K, N), and (B, C, K) or (B, C, K, N).
    n_patches : int
        Patches of an image, P.
    """
    patches = support if support.ndim == plan.ndim else support.unsqueeze(-1)
    mass = plan.new_zeros(*plan.shape[:-2], n_patches, plan.shape[-1])
    return mass.scatter_add(-2, patches.expand_as(plan), plan)


def class_mass(plan: Tensor, support: Tensor, classes: Tensor, n_patches: int) -> Tensor:
    """Compute :func:`patch_mass` of one class for each image, ``classes`` (B,); returns (B, P, N)."""
    each = torch.arange(classes.shape[0], device=classes.device)
    return patch_mass(plan[each, classes, None], support[each, classes, None], n_patches)[:, 0]


def prompt_overlap(mass: Tensor) -> Tensor:
    """Compute the share of mass that two prompts have in common, averaged over pairs of prompts, (...).

    ``mass`` (..., P, N) comes from :func:`patch_mass`; each prompt's is scaled to the sum 1, and two prompts have in
    common the sum over patches of the smaller of both. The result is 1 if all prompts have the same mass, and 0 if no
    two share a patch or there is a single prompt.
    """
    n_prompts = mass.shape[-1]
    # The prompt at rank k is the smaller one in n - 1 - k pairs, so no pair has to be formed.
    ascending = shares(mass, dim=-2).sort(dim=-1).values
    times_smaller = torch.arange(n_prompts - 1, -1, -1, dtype=mass.dtype, device=mass.device)
    return (ascending * times_smaller).sum(dim=(-2, -1)) / max(n_prompts * (n_prompts - 1) / 2, 1)


def dominance(mass: Tensor) -> Tensor:
    """Compute the largest share of the mass (..., P, N) that one prompt has, (...), at least 1 / N; 0 without mass.

    It is 1 / N for balanced transport and uniform plans, so it is informative for relaxed transport only.
    """
    return shares(mass.sum(dim=-2), dim=-1).amax(dim=-1)


def plan_entropy(plan: Tensor) -> Tensor:
    """Compute the entropy of a transport plan (..., K, N) divided by that of the uniform plan, (...).

    It is 1 for the uniform plan, and 0 if one patch and prompt have all mass.
    """
    pairs = shares(plan.flatten(-2), dim=-1)
    entropy: Tensor = torch.special.entr(pairs).sum(dim=-1)
    return entropy / math.log(max(pairs.shape[-1], 2))


def prompt_similarity(local_text: Tensor) -> Tensor:
    """Compute the mean cosine between two local prompts of a class, (C,); 0 for a single prompt.

    ``local_text`` holds local features from :meth:`sotglp.SOTGLP.encode_text`, (C, N, d), of any length.
    """
    unit = F.normalize(local_text, dim=-1)
    first, second = torch.triu_indices(unit.shape[-2], unit.shape[-2], offset=1, device=unit.device)
    return (unit @ unit.mT)[..., first, second].sum(dim=-1) / max(len(first), 1)


def shares(values: Tensor, dim: int) -> Tensor:
    """Scale non-negative values to the sum 1 along a dimension; zeros stay."""
    return values / values.sum(dim=dim, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
