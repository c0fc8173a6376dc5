"""SOT-GLP: global prompts compared with images by cosine, local prompts with patches by optimal transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.features.rows import EncodedImages
from sotglp.methods.fused_model import FusedModel
from sotglp.methods.local_match import LocalMatch, match_patches
from sotglp.settings import (
    Branches,
    LocalContexts,
    LocalFactor,
    LocalInit,
    Matching,
    ModelConfig,
    Residual,
    Settings,
)


class SOTGLP(FusedModel):
    """Local-global prompt learning with sparse optimal transport.

    Parameters
    ----------
    backbone : Backbone
        Frozen CLIP-like model.
    class_names : sequence of str
        C names; underscores are read as spaces.
    n_global_prompts : int, default 3
        Global prompts, shared by all classes, M.
    n_local_prompts : int, default 4
        Local prompts of each class, N.
    top_k : int or None, default 10
        Patches in the support of each image and class, K; None uses all.
    epsilon : float, default 0.1
        Entropic regularisation of transport.
    template : str, default "A photo of a {}"
        Its tokens without the placeholder initialise the global contexts and set their number, n.
    learn_projection : bool, default True
        Learn a (W, W) projection of patch tokens, initialised to the identity; False is the projection-free variant.
    local_init : {"xavier", "orthonormal"}, default "xavier"
        Initialisation of the local contexts.
    local_factor : {"1/N", "1"}, default "1/N"
        Factor on the transported similarity; the published numbers use 1/N.
    relaxation : float or None, default None
        Weight of relaxed marginals; None for balanced transport.
    seed : int, default 1
        Seed of the local contexts.
    branches : {"both", "global", "local"}, default "both"
        Prompts that are learned. ``global`` has no local prompts and no projection; patches are compared with the
        global prompts. ``local`` keeps the global prompts at the template.
    predict_with : {"both", "global", "local"} or None, default None
        Branches in the logits; None for those that are learned. The other one counts in OOD scores only.
    matching : {"transport", "uniform", "per-prompt"}, default "transport"
        How patches are matched with the N prompts of a class: an optimal plan on one support; the uniform plan on that
        support; the uniform plan on K patches chosen for each prompt. The latter two ignore ``epsilon`` and
        ``relaxation``.
    local_contexts : {"class", "shared"}, default "class"
        Whether each class has its own local contexts, as published, or all classes share N of them.
    residual : {"gda", "proker", "pool"} or None, default None
        Closed-form classifier on the image features of the shots that is added to the logits; not in the paper.
    fusion : tuple of three float or None, default None
        Factors of scaled global cosines, scaled local cosines and residual in the logits. None is (1/2, 1/2, 0) as
        published; with a residual, a fit then replaces the 0 by what it chooses on the shots.

    Attributes
    ----------
    global_prompts : Parameter
        (M, n, d_text); frozen if only local prompts are learned.
    local_prompts : Parameter or None
        (C, N, n, d_text), or (1, N, n, d_text) if all classes share them; None if only global prompts are learned.
    local_projection : Parameter or None
        (W, W), used as ``tokens @ local_projection.T``.
    residual : ClosedFormResidual or None
        Scores of the residual, of unit image features.

    Raises
    ------
    SotglpError
        If a setting is out of range, a name or the template is too long for the text tower, or K exceeds the number
        of patches.

    References
    ----------
    SOT-GLP, "Local-Global Prompt Learning via Sparse Optimal Transport", arXiv 2603.08347.
    """

    kind: ClassVar[str] = "sot-glp"
    Config: ClassVar[type[Settings]] = ModelConfig

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        n_global_prompts: int = 3,
        n_local_prompts: int = 4,
        top_k: int | None = 10,
        epsilon: float = 0.1,
        template: str = "A photo of a {}",
        learn_projection: bool = True,
        local_init: LocalInit = "xavier",
        local_factor: LocalFactor = "1/N",
        relaxation: float | None = None,
        seed: int = 1,
        *,
        branches: Branches = "both",
        predict_with: Branches | None = None,
        matching: Matching = "transport",
        local_contexts: LocalContexts = "class",
        residual: Residual | None = None,
        fusion: tuple[float, float, float] | None = None,
    ) -> None:
        given = locals()
        super().__init__(backbone, class_names, seed, **{name: given[name] for name in ModelConfig.model_fields})

    def match(self, encoded: EncodedImages, local_text: Tensor) -> LocalMatch:
        """Match encoded patches with local features (C, N, d) from :meth:`encode_text`; see :func:`match_patches`."""
        patches, prompts = self._local_features(encoded, local_text)
        with torch.autocast(self.backbone.device.type, enabled=False):
            return match_patches(
                patches,
                prompts,
                top_k=self.top_k,
                epsilon=self.config.epsilon,
                relaxation=self.config.relaxation,
                factor=1 / local_text.shape[1] if self.config.local_factor == "1/N" else 1.0,
                matching=self.config.matching,
                traceable=self.traceable,
            )
