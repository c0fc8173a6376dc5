"""Negative labels: names of other things, whose similarity to an image is evidence that it shows none of the classes.

The score neglabel (NegLabel, ICLR 2024, arXiv 2403.20078) needs text alone, no images. Candidates are frequent nouns of
WordNet, which ship with the package; those that are least similar to all class names are the negatives.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib import resources
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.images.labels import prompt_name
from sotglp.methods.zero_shot import sentence_features

TEMPLATE = "the nice {}."
"""Sentence of classes and negatives, as published."""

NEAREST = 0.95
"""Quantile of a candidate's similarities to the classes that must be small; it forgives single similar classes."""

SHARE = 0.15
"""Share of the candidates that become negatives, as published: about 730 of 4,891 (published: 10,000 of 70,000)."""

GROUP_SIZE = 100
"""Negatives in a group; the score is the mean over groups, so that a chance similarity counts in one alone."""

_candidates: WeakKeyDictionary[Backbone, Tensor] = WeakKeyDictionary()
"""Unit features of the candidates, which are encoded once for each backbone."""

_latest: WeakKeyDictionary[Backbone, tuple[tuple[str, ...], Tensor, Tensor]] = WeakKeyDictionary()
"""For each backbone, the class names that it was last asked for, and what they gave: the same for all batches."""


def packaged_nouns() -> list[str]:
    """Return the nouns that ship with the package, sorted."""
    file = resources.files("sotglp") / "scoring" / "nouns" / "nouns.txt.gz"
    return gzip.decompress(file.read_bytes()).decode().splitlines()


def negative_score(image: Tensor, classes: Tensor, negatives: Tensor, scale: float) -> Tensor:
    """Compute the share of the softmax over classes and a group of negatives that classes have, mean over groups.

    Parameters
    ----------
    image : Tensor
        Unit image features, (B, d).
    classes : Tensor
        Unit text features of the classes, (C, d).
    negatives : Tensor
        Unit text features of the negatives, the least similar to the classes first, (M, d).
    scale : float
        Factor on cosines before the softmax; published: 100.

    Returns
    -------
    Tensor
        From 0 to 1, larger is more in-distribution, (B,).
    """
    of_classes = torch.logsumexp(scale * (image @ classes.T), dim=1)  # (B,)
    of_negatives = scale * (image @ negatives.T)
    n_groups = max(len(negatives) // GROUP_SIZE, 1)
    shares = [
        torch.sigmoid(of_classes - torch.logsumexp(of_negatives[:, group::n_groups], dim=1))
        for group in range(n_groups)
    ]
    return torch.stack(shares).mean(dim=0)


def farthest(candidates: Tensor, classes: Tensor) -> Tensor:
    """Return the candidates (n, d) that are least similar to the classes (C, d), the least similar first, (M, d)."""
    similarities = torch.quantile(candidates @ classes.T, NEAREST, dim=1)
    n_negatives = max(round(SHARE * len(candidates)), 1)
    return candidates[similarities.argsort(stable=True)[:n_negatives]]


@torch.no_grad()
def class_and_negative_features(backbone: Backbone, class_names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Encode classes and choose their negatives: unit features (C, d) and (M, d), on the backbone's device."""
    names = tuple(class_names)
    if backbone not in _latest or _latest[backbone][0] != names:
        if backbone not in _candidates:
            _candidates[backbone] = _encode(backbone, _fitting(backbone, packaged_nouns()))
        classes = _encode(backbone, names)
        _latest[backbone] = names, classes, farthest(_candidates[backbone].to(classes.device), classes)
    _, classes, negatives = _latest[backbone]
    return classes, negatives


def _encode(backbone: Backbone, names: Sequence[str]) -> Tensor:
    return F.normalize(sentence_features(backbone, names, [TEMPLATE])[:, 0].float(), dim=-1)


def _fitting(backbone: Backbone, names: Sequence[str]) -> list[str]:
    """Names whose sentences are short enough for the text tower."""
    tokenizer = backbone.text.tokenizer
    most = backbone.text.context_length - len(tokenizer.before) - len(tokenizer.after)
    return [name for name in names if len(tokenizer.encode(TEMPLATE.replace("{}", prompt_name(name)))) <= most]
