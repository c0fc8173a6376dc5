"""Global prompts compared with images, local prompts with patches: what SOT-GLP shares with methods like it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.backbone.blocks import learned_linear
from sotglp.errors import SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import AdaptedModel, Loss, Outputs, full_precision, unit_patches
from sotglp.methods.local_match import LocalMatch
from sotglp.methods.prompts import TokenizedClasses, initial_local_contexts, template_tokens, tokenize_classes
from sotglp.methods.text_features import TextFeatures, encode_prompts
from sotglp.settings import Branches, checked


class PromptModel(AdaptedModel):
    """Learned prompts in two branches, global and local.

    Parameters
    ----------
    backbone : Backbone
        Frozen CLIP-like model.
    class_names : sequence of str
        C names; underscores are read as spaces.
    seed : int, default 1
        Seed of the local contexts.
    **settings
        Those of ``Config``, a :class:`sotglp.settings.PromptConfig`.

    Attributes
    ----------
    global_prompts : Parameter
        (M, n, d_text); frozen if only local prompts are learned.
    local_prompts : Parameter or None
        (C, N, n, d_text), or (1, N, n, d_text) if all classes share them; None if only global prompts are learned.
    local_projection : Parameter or None
        (W, W), used as ``tokens @ local_projection.T``.
    """

    kept: ClassVar[tuple[str, ...]] = ("global_prompts", "local_prompts", "local_projection")

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, checked(self.Config, settings))
        config = self.config
        self.top_k = backbone.n_patches if config.top_k is None else config.top_k
        if self.top_k > backbone.n_patches:
            raise SotglpError(
                f"top_k = {self.top_k} exceeds the {backbone.n_patches} patches of {backbone.name} at "
                f"{backbone.image_size[0]} x {backbone.image_size[1]} pixels: lower top_k or raise the image size"
            )
        text = backbone.text
        start = template_tokens(config.template, text.context_length, text.tokenizer)
        classes = tokenize_classes(self.class_names, len(start), text.context_length, text.tokenizer)
        self.register_buffer("class_tokens", classes.tokens.to(backbone.device), persistent=False)
        self.register_buffer("eot_positions", classes.eot_positions.to(backbone.device), persistent=False)
        self.class_tokens: Tensor  # (C, longest name + 1)
        self.eot_positions: Tensor  # (C,)

        # Prompts are float32, whatever the dtype of the weights: steps of SGD vanish in half precision.
        template_context = text.embed(start.to(backbone.device)).float()
        self.global_prompts = nn.Parameter(
            template_context.repeat(config.n_global_prompts, 1, 1), requires_grad=config.branches != "local"
        )
        self.local_prompts: nn.Parameter | None = None
        if config.branches == "global":
            return
        generator = torch.Generator().manual_seed(seed)
        n_owners = 1 if config.local_contexts == "shared" else len(self.class_names)
        shape = (n_owners, config.n_local_prompts, len(start), text.width)
        local = initial_local_contexts(*shape, config.local_init, generator)
        self.local_prompts = nn.Parameter(local.to(backbone.device))
        if config.learn_projection:
            self.local_projection = nn.Parameter(torch.eye(backbone.patch_width, device=backbone.device))

    @property
    def class_rows(self) -> tuple[str, ...]:
        """The local prompts, where each class has its own."""
        own_local = self.local_prompts is not None and self.config.local_contexts == "class"
        return ("local_prompts",) if own_local else ()

    def encode_text(self, classes: Sequence[int] | None = None) -> TextFeatures:
        """Encode every prompt of the classes with these indices, or of all: (C, M, d) and (C, N, d), not normalised.

        Only features of learned prompts take gradients. Without local prompts, the global features take their place,
        (C, M, d).
        """
        chosen = slice(None) if classes is None else list(classes)
        names = TokenizedClasses(self.class_tokens[chosen], self.eot_positions[chosen])
        if self.local_prompts is not None and self.config.local_contexts == "class":
            text = encode_prompts(self.backbone.text, names, self.global_prompts, self.local_prompts[chosen])
        else:
            shared: Tensor = self.global_prompts
            if self.local_prompts is not None:
                shared = torch.cat([shared, self.local_prompts[0]])  # (M + N, n, d_text)
            none = shared.new_empty(len(names.tokens), 0, *shared.shape[1:])
            features = encode_prompts(self.backbone.text, names, shared, none).global_
            of_global, of_local = features.split([len(self.global_prompts), len(shared) - len(self.global_prompts)], 1)
            text = TextFeatures(of_global, of_global.detach() if self.local_prompts is None else of_local)
        return text._replace(global_=text.global_.detach()) if self.config.branches == "local" else text

    def compare(
        self, encoded: EncodedImages, text: TextFeatures, *, drawn_prompts: Tensor | None = None, for_loss: bool = False
    ) -> Outputs:
        """Compare encoded images with encoded prompts; see :meth:`AdaptedModel.compare`."""
        global_logits = self._global_logits(encoded.image_features, text, drawn_prompts)
        if for_loss and self.config.branches == self.predicting == "global":
            left_out = global_logits.new_tensor(math.nan)
            n_images, n_classes = global_logits.shape
            patch_logits = left_out.expand(n_images, encoded.patch_tokens.shape[1], n_classes)
            return Outputs(global_logits, left_out.expand_as(global_logits), patch_logits)
        match = self.match(encoded, text.local)
        return Outputs(global_logits, match.scores, match.patch_scores, match.plan, match.support)

    @abstractmethod
    def match(self, encoded: EncodedImages, local_text: Tensor) -> LocalMatch:
        """Match encoded patches with local features (C, N, d) from :meth:`encode_text`."""

    def global_cosines(self, image_features: Tensor, text: TextFeatures) -> Tensor:
        """See :meth:`AdaptedModel.global_cosines`."""
        return self._global_logits(image_features, text, None)

    def draw_prompts(self, n_images: int, dropout: float, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw max(M - int(dropout M), 1) of the M global prompts for each image, with replacement.

        The result is indices, (B, number drawn); None for dropout 0, which uses all M.
        """
        if dropout == 0:
            return None
        n_prompts = self.config.n_global_prompts
        n_drawn = max(n_prompts - int(dropout * n_prompts), 1)
        return torch.randint(n_prompts, (n_images, n_drawn), generator=generator)

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """Return a model of other classes with the prompts that all classes share.

        Local contexts of the old classes do not transfer, so only the global prompts predict in their place. Raise an
        OldClassesOnlyError if only local prompts of single classes were learned.
        """
        if self.class_rows and self.config.branches == "local":
            return super().for_new_classes(class_names)
        return type(self)(self.backbone, class_names, **self._shared_settings())._with_state_of(self)

    def _shared_settings(self) -> dict[str, Any]:
        """Return the settings of a model of what all classes share."""
        settings: dict[str, Any] = self.config.model_dump()
        return settings | ({"branches": "global", "predict_with": None} if self.class_rows else {})

    def loss(
        self, images: Tensor, targets: Tensor, prompt_dropout: float = 0.75, generator: torch.Generator | None = None
    ) -> Loss:
        """Compute the training loss of preprocessed images.

        Parameters
        ----------
        images : Tensor
            (B, 3, H, W).
        targets : Tensor
            Class index of each image, int64, (B,).
        prompt_dropout : float, default 0.75
            Share of global prompts left out for each image.
        generator : torch.Generator or None
            Random generator of the dropout; None uses torch's global one.

        References
        ----------
        SOT-GLP, arXiv 2603.08347, training objective.
        """
        drawn = self.draw_prompts(len(images), prompt_dropout, generator)
        encoded = self._encode_image(images)
        outputs = self.compare(encoded, self.encode_text(), drawn_prompts=drawn, for_loss=True)
        return self.compute_loss(outputs, targets)

    def compute_loss(self, outputs: Outputs, targets: Tensor) -> Loss:
        """Add the cross entropies of the learned branches' scaled cosines for class indices (B,)."""
        targets, branches = targets.to(outputs.global_logits.device), self.config.branches
        zero = outputs.global_logits.new_zeros(())
        logits = self.backbone.logit_scale * outputs.global_logits
        global_ = zero if branches == "local" else F.cross_entropy(logits, targets)
        local = zero if branches == "global" else self._local_loss(outputs, targets)
        return Loss(global_ + local, global_, local, outputs)

    def _local_loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.backbone.logit_scale * outputs.local_logits, targets)

    def logits(self, outputs: Outputs) -> Tensor:
        """Compute scaled cosines s (global + local) / 2, or s times those of the only branch that predicts, (B, C)."""
        of_global, of_local = self.branch_factors
        cosines = {
            "both": of_global * outputs.global_logits + of_local * outputs.local_logits,
            "global": of_global * outputs.global_logits,
            "local": of_local * outputs.local_logits,
        }[self.predicting]
        return self.backbone.logit_scale * cosines

    @property
    def branch_factors(self) -> tuple[float, float]:
        """Factors of global and local cosines in the logits."""
        return (0.5, 0.5) if self.predicting == "both" else (1.0, 1.0)

    @property
    def predicting(self) -> Branches:
        """Branches whose cosines are in the logits."""
        found: Branches = self.config.predict_with or self.config.branches
        return found

    @torch.no_grad()
    def transport(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the transport plan and support of preprocessed images.

        Returns
        -------
        plan : Tensor
            (B, C, K, N); 1 / (K N) everywhere unless ``matching`` is ``"transport"``.
        support : Tensor
            Patch indices, best first, (B, C, K); with ``matching="per-prompt"`` those of each prompt, (B, C, K, N).
            Without local prompts, the M global prompts take the place of the N.
        """
        match = self.match(self._encode_image(images), self.encode_text().local)
        return match.plan, match.support

    def _global_logits(self, image_features: Tensor, text: TextFeatures, drawn_prompts: Tensor | None) -> Tensor:
        """Mean cosine with the global prompts, or with those drawn for each image, (B, C)."""
        with torch.autocast(self.backbone.device.type, enabled=False):
            image = F.normalize(full_precision(image_features), dim=-1)
            cosines = torch.einsum("bd,cmd->bcm", image, F.normalize(full_precision(text.global_), dim=-1))
            if drawn_prompts is not None:
                drawn = drawn_prompts.to(cosines.device).unsqueeze(1).expand(-1, cosines.shape[1], -1)
                cosines = cosines.gather(2, drawn)
            return cosines.mean(dim=-1)

    def _local_features(self, encoded: EncodedImages, local_text: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, P, d) and local prompts (C, N, d) in the joint space, of unit length."""
        with torch.autocast(self.backbone.device.type, enabled=False):
            if self.local_projection is not None:
                tokens = learned_linear(full_precision(encoded.patch_tokens), self.local_projection)
                encoded = encoded._replace(patch_tokens=tokens)
            return unit_patches(self.backbone, encoded), F.normalize(full_precision(local_text), dim=-1)
