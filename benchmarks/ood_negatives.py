"""Names of other things fused with GL-MCM and the local branch: variants of neglabel, on the models of ood_scores.py.

Pools of negatives are the packaged nouns of WordNet (NegLabel, arXiv 2403.20078), adjectives of WordNet joined to
general nouns such as "object" (a conjugated semantic pool, CSP, arXiv 2410.08611), and both. Text alone cannot tell how
similar photos of this kind are to a name whatever they show; the centred variants subtract the mean over the shots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_models import Seen
from pytorch_ood_scores import Candidate, Fitting, Score, grid
from sotglp.backbone import Backbone
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import unit_patches
from sotglp.methods.sot_glp import SOTGLP
from sotglp.methods.text_features import TextFeatures
from sotglp.methods.zero_shot import sentence_features
from sotglp.scoring.negative_labels import NEAREST as QUANTILE
from sotglp.scoring.negative_labels import TEMPLATE, packaged_nouns
from sotglp.scoring.ood import Evidence, score_evidence

ADJECTIVES = Path("/usr/share/wordnet/index.adj")
"""A file of Debian's package wordnet-base."""

SUPERCLASSES = (
    *("area", "creature", "environment", "item", "landscape", "object", "pattern", "place", "scene", "space"),
    *("structure", "thing", "view", "vista"),
)
"""The general nouns of CSP."""

PATCHES = 5
"""Patches of an image, the most similar to any class, that are compared with negatives."""

SHARES, SHARPNESS = (0.15, 0.9), (1.0, 4.0)
"""Share of a pool that becomes negatives, the farthest from the classes; factor on the backbone's logit scale."""

POOLS = ("nouns", "adjectives", "both")
NEGATIVES = ("neglabel, gl-mcm", "CSP, gl-mcm", "CSP, gl-mcm, patches", "centred, gl-mcm", "centred, gl-mcm, patches")


@cache
def pool(backbone: Backbone, name: str) -> Tensor:
    """Unit text features of a pool, (n, d)."""
    if name == "both":
        return torch.cat([pool(backbone, "nouns"), pool(backbone, "adjectives")])
    return encode_names(backbone, tuple(packaged_nouns() if name == "nouns" else conjugated()))


@cache
def encode_names(backbone: Backbone, names: tuple[str, ...]) -> Tensor:
    with torch.no_grad():
        return F.normalize(sentence_features(backbone, names, [TEMPLATE])[:, 0].float(), dim=-1)


def conjugated() -> list[str]:
    """Frequent adjectives of one word, each with one of the general nouns in turn."""
    frequent = set()
    for line in ADJECTIVES.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):  # the licence
            lemma, _, _, n_pointers, *rest = line.split()
            if int(rest[int(n_pointers) + 1]) and re.fullmatch(r"[a-z][a-z'-]+", lemma):
                frequent.add(lemma)
    return [f"{word} {SUPERCLASSES[i % len(SUPERCLASSES)]}" for i, word in enumerate(sorted(frequent))]


class Negatives:
    """Log-odds of the classes of a model against negatives, by the image feature or by patches.

    Centred, the similarity to a negative is that beyond the mean over the shots.
    """

    def __init__(self, model: SOTGLP, shots: Seen) -> None:
        self.backbone, self.shots = model.backbone, shots
        self.classes = encode_names(model.backbone, model.class_names)
        # Features are compared with each pool once.
        self.similarities = cache(lambda features, name: features @ pool(self.backbone, name).T)
        self.kept_patches = cache(self._kept_patches)

    def of_images(self, images: Seen, **chosen: Any) -> Tensor:
        """Compute the log-odds of n images, (n,)."""
        return self._log_odds(images.features, self.shots.features, **chosen)

    def of_patches(self, images: Seen, **chosen: Any) -> Tensor:
        """Compute the same by the patches that are most similar to a class, mean over them."""
        kept, of_shots = self.kept_patches(images.encoded), self.kept_patches(self.shots.encoded)
        return self._log_odds(kept, of_shots, **chosen).view(-1, PATCHES).mean(dim=1)

    def _log_odds(
        self, features: Tensor, shots: Tensor, *, names: str, share: float, sharpness: float, centred: bool
    ) -> Tensor:
        scale = sharpness * float(self.backbone.logit_scale)
        own = self._farthest(names, share)
        similarities = self.similarities(features, names)[:, own]
        if centred:
            similarities = similarities - self.similarities(shots, names)[:, own].mean(dim=0)
        of_classes = torch.logsumexp(scale * (features @ self.classes.T), dim=1)
        return of_classes - torch.logsumexp(scale * similarities, dim=1)

    def _farthest(self, names: str, share: float) -> Tensor:
        candidates = pool(self.backbone, names)
        order = torch.quantile(candidates @ self.classes.T, QUANTILE, dim=1).argsort(stable=True)
        return order[: round(share * len(candidates))]

    def _kept_patches(self, encoded: EncodedImages) -> Tensor:
        """Unit features of ``PATCHES`` patches of each image, (n PATCHES, d)."""
        patches = unit_patches(self.backbone, encoded)
        best = (patches @ self.classes.T).amax(dim=2).topk(PATCHES, dim=1).indices
        return patches.gather(1, best[:, :, None].expand(-1, -1, patches.shape[2])).flatten(0, 1)


def negative_candidates(model: SOTGLP, text: TextFeatures, found: Fitting) -> list[Candidate]:
    """Sums of GL-MCM and scores by negatives, each divided by its standard deviation over the shots."""
    negatives = Negatives(model, found.shots)

    def by_name(name: str, temperature: float = 1.0) -> Score:
        return lambda images: score_evidence(Evidence(images.outputs, model, images.encoded, text), name, temperature)

    def fused(*parts: Score) -> Score:
        spreads = [part(found.shots).std() for part in parts]
        return lambda images: sum(part(images) / spread for part, spread in zip(parts, spreads, strict=True))

    def published(temperature: float) -> Score:
        return fused(by_name("gl-mcm"), by_name("neglabel", temperature))

    def with_negatives(centred: bool, patches: bool) -> Callable[..., Score]:
        def fit(**chosen: Any) -> Score:
            parts = [by_name("gl-mcm"), partial(negatives.of_images, centred=centred, **chosen)]
            if patches:  # there are many, so that they are compared with few negatives
                few = chosen | {"names": "nouns", "share": SHARES[0]}
                parts.append(cache(partial(negatives.of_patches, centred=centred, **few)))
            return fused(*parts)

        return fit

    space = {"names": POOLS, "share": SHARES, "sharpness": SHARPNESS}
    table: dict[str, tuple[Callable[..., Score], Mapping[str, Sequence[Any]]]] = {
        NEGATIVES[0]: (published, {"temperature": (1.0, 0.25, 3.0)}),
        NEGATIVES[1]: (with_negatives(False, False), space),
        NEGATIVES[2]: (with_negatives(False, True), space),
        NEGATIVES[3]: (with_negatives(True, False), space),
        NEGATIVES[4]: (with_negatives(True, True), space),
    }
    return [
        Candidate(name, parameters, lambda fit=fit, chosen=chosen: fit(**chosen))
        for name, (fit, parameters_of) in table.items()
        for parameters, chosen in grid(parameters_of)
    ]
