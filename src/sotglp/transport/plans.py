"""How the local prompts of a class share an image: whether they look at different patches or at the same ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_mass(plan: Tensor, support: Tensor, n_patches: int) -> Tensor:
    """Mass that a plan puts on each patch of an image, from each prompt; 0 off the support.

    Parameters
    ----------
    plan : Tensor
        From :meth:`sotglp.SOTGLP.transport`, (B, C, K, N).
    support : Tensor
        Patch indices from there: (B, C, K) shared by the prompts, or (B, C, K, N), each prompt's own.
    n_patches : int
        Patches of an image, P.

    Returns
    -------
    Tensor
        (B, C, P, N).
    """
    patches = support if support.ndim == plan.ndim else support.unsqueeze(-1)
    mass = plan.new_zeros(*plan.shape[:-2], n_patches, plan.shape[-1])
    return mass.scatter_add(-2, patches.expand_as(plan), plan)


def class_mass(plan: Tensor, support: Tensor, classes: Tensor, n_patches: int) -> Tensor:
    """Mass that the plan of one class for each image puts on its patches, from each of the class's prompts.

    Parameters
    ----------
    plan, support, n_patches
        See :func:`patch_mass`.
    classes : Tensor
        The class to look at for each image, (B,).

    Returns
    -------
    Tensor
        (B, P, N).
    """
    each = torch.arange(classes.shape[0], device=classes.device)
    return patch_mass(plan[each, classes, None], support[each, classes, None], n_patches)[:, 0]


def prompt_overlap(mass: Tensor) -> Tensor:
    """Share of its mass that a prompt has in common with another one, averaged over pairs of prompts.

    Each prompt's mass is scaled to the sum 1; two prompts have in common the sum over patches of the smaller of both.

    Parameters
    ----------
    mass : Tensor
        From :func:`patch_mass`, (..., P, N), not negative.

    Returns
    -------
    Tensor
        (...): 1 if all prompts take the same patches alike, 0 if no two share one. A single prompt shares none, and
        one without mass shares none with any: 0.
    """
    n_prompts = mass.shape[-1]
    # Of all pairs with the prompt at place k from below, it is the smaller one in n - 1 - k: no pair has to be formed.
    ascending = shares(mass, dim=-2).sort(dim=-1).values
    times_smaller = torch.arange(n_prompts - 1, -1, -1, dtype=mass.dtype, device=mass.device)
    return (ascending * times_smaller).sum(dim=(-2, -1)) / max(n_prompts * (n_prompts - 1) / 2, 1)


def dominance(mass: Tensor) -> Tensor:
    """Share of all mass that the prompt with most of it has.

    The marginals of balanced transport and equal plans fix it at 1 / N; it tells something of relaxed transport.

    Parameters
    ----------
    mass : Tensor
        From :func:`patch_mass`, (..., P, N), not negative.

    Returns
    -------
    Tensor
        (...): from 1 / N, where all prompts have the same, to 1; 0 where there is no mass at all.
    """
    return shares(mass.sum(dim=-2), dim=-1).amax(dim=-1)


def plan_entropy(plan: Tensor) -> Tensor:
    """Entropy of a transport plan over that of a plan of equal parts.

    Parameters
    ----------
    plan : Tensor
        From :meth:`sotglp.SOTGLP.transport`, (..., K, N), not negative.

    Returns
    -------
    Tensor
        (...): 1 if all patches of the support and all prompts are joined alike, 0 if one pair has all mass.
    """
    pairs = shares(plan.flatten(-2), dim=-1)
    entropy: Tensor = torch.special.entr(pairs).sum(dim=-1)
    return entropy / math.log(max(pairs.shape[-1], 2))


def prompt_similarity(local_text: Tensor) -> Tensor:
    """Mean cosine between two local prompts of a class.

    Parameters
    ----------
    local_text : Tensor
        Local features from :meth:`sotglp.SOTGLP.encode_text`, (C, N, d), of any length.

    Returns
    -------
    Tensor
        (C,), from -1 to 1; 0 where there is a single prompt.
    """
    unit = F.normalize(local_text, dim=-1)
    first, second = torch.triu_indices(unit.shape[-2], unit.shape[-2], offset=1, device=unit.device)
    return (unit @ unit.mT)[..., first, second].sum(dim=-1) / max(len(first), 1)


def shares(values: Tensor, dim: int) -> Tensor:
    """Values, not negative, scaled to the sum 1 along a dimension; zeros stay."""
    return values / values.sum(dim=dim, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
