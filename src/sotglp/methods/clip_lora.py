"""CLIP-LoRA: low-rank updates of the attention in both towers, on images and text that are encoded in each step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from sotglp.backbone import Backbone
from sotglp.backbone.adapted import AdaptedBackbone, towers
from sotglp.backbone.low_rank import LowRankUpdates, attentions, new_matrices
from sotglp.errors import SotglpError, SotglpWarning
from sotglp.methods.base import AdaptedModel
from sotglp.methods.configs import ClipLoraConfig, ZeroShotConfig
from sotglp.methods.text_features import TextFeatures
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings, TrainConfig


class ClipLora(ZeroShot):
    """Zero-shot classification by towers whose query, key and value matrices have learned updates of low rank.

    Of L blocks of width W, ``image_down`` and ``text_down`` are (L, 3, r, W), ``image_up`` and ``text_up``
    (L, 3, W, r); an update is alpha / sqrt(r) times their product, as in the authors' code. They are None for a tower
    without blocks of open_clip, which stays frozen. ``backbone`` has the updates, and shares its weights with the
    frozen one. See Zanella and Ben Ayed, "Low-Rank Few-Shot Adaptation of Vision-Language Models", CVPR Workshops 2024,
    arXiv 2405.18541, section 3.
    """

    kind: ClassVar[str] = "clip-lora"
    Config: ClassVar[type[Settings]] = ClipLoraConfig
    kept: ClassVar[tuple[str, ...]] = ("image_down", "image_up", "text_down", "text_up")
    backbone: AdaptedBackbone

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        frozen = backbone.frozen
        super().__init__(frozen, class_names, seed, **settings)
        del self.class_vectors  # they change with the text tower
        generator = torch.Generator().manual_seed(seed)
        scale = self.config.alpha / math.sqrt(self.config.rank)
        updates: list[LowRankUpdates | None] = []
        for name, tower in zip(("image", "text"), towers(frozen.clip), strict=True):
            matrices: tuple[nn.Parameter | None, nn.Parameter | None] = None, None
            if layers := attentions(tower):
                matrices = down, up = new_matrices(layers, self.config.rank, generator)
                updates.append(LowRankUpdates(down, up, scale, self.config.input_dropout))
            else:
                updates.append(None)
            for side, matrix in zip(("down", "up"), matrices, strict=True):
                self.register_parameter(f"{name}_{side}", matrix)
        if not any(updates):
            raise SotglpError(
                f"a model of kind {self.kind} adapts the attention of open_clip's own transformers, and {frozen.name} "
                "has none: choose another method or backbone"
            )
        self.backbone = AdaptedBackbone(frozen, *updates)

    def check_training(self, config: TrainConfig) -> None:
        """Warn of a tower that stays frozen, and of views that can't be stored."""
        if not self.backbone.adapts_images or self.text_down is None:
            names = ("text", "image") if self.text_down is None else ("image", "text")
            warnings.warn(
                "the {} tower of {name} has no attention of open_clip's own, so that {kind} adapts the {} tower "
                "alone".format(*names, name=self.backbone.name, kind=self.kind),
                SotglpWarning,
                stacklevel=3,
            )
        if self.backbone.adapts_images and config.augment and config.views:
            warnings.warn(
                f"{self.kind} can't use views = {config.views} stored views, since its image tower changes: each epoch "
                "encodes new ones, as with views = 0",
                SotglpWarning,
                stacklevel=3,
            )

    def begin_step(self, seed: int) -> None:
        """See :meth:`AdaptedModel.begin_step`."""
        self.backbone.begin_step(seed)

    def encode_text(self, classes: Sequence[int] | None = None) -> TextFeatures:
        """Encode the sentences of the classes with these indices, or of all, (C, 1, d), for both branches."""
        names = self.class_names if classes is None else [self.class_names[index] for index in classes]
        vectors = self._sentence_vectors(names)[:, None]
        return TextFeatures(vectors, vectors)

    def for_new_classes(self, class_names: Sequence[str]) -> AdaptedModel:
        """See :meth:`AdaptedModel.for_new_classes`."""
        return ClipLora(self.backbone, class_names, **self.config.model_dump())._with_state_of(self)

    def for_export(self) -> AdaptedModel:
        """Return the zero-shot model of the towers whose weights contain the updates."""
        fields = {name: getattr(self.config, name) for name in ZeroShotConfig.model_fields}
        merged = ZeroShot(self.backbone.merged(), self.class_names, **fields)
        merged.shots, merged.value_ranges = self.shots, self.value_ranges
        return merged.eval()
