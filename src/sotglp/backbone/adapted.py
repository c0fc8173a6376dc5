"""A backbone whose towers learn low-rank updates, beside the frozen one that it shares its weights with."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import nn

from sotglp.backbone.backbone import Backbone
from sotglp.backbone.low_rank import LowRankUpdates, add_updates, attentions, merge_updates


class AdaptedBackbone(Backbone):
    """A frozen backbone with low-rank updates in its image tower, its text tower or both.

    It shares all weights with the frozen backbone, and has its name and fingerprint, since the updates are no part of
    its weights. In training mode, which it takes on with the model that it belongs to, features have a gradient.
    """

    _updates: tuple[LowRankUpdates, ...] = ()

    def __init__(self, frozen: Backbone, image: LowRankUpdates | None, text: LowRankUpdates | None) -> None:
        clip = _sharing_copy(frozen.clip)
        super().__init__(clip, **_settings_of(frozen))
        _take_preprocess(self, frozen)
        self._frozen = (frozen,)  # in a tuple, so that it is no submodule
        self.adapts_images = image is not None
        for updates, tower in zip((image, text), towers(clip), strict=True):
            if updates is not None:
                add_updates(attentions(tower), updates)
                self._updates += (updates,)

    @property
    def frozen(self) -> Backbone:
        """The backbone without the updates."""
        return self._frozen[0]

    def train(self, mode: bool = True) -> AdaptedBackbone:
        """Switch gradients and dropout of the updates; all else stays in evaluation mode."""
        super().train(False)
        self.training = mode
        for updates in self._updates:
            updates.learns = mode
        return self

    def begin_step(self, seed: int) -> None:
        """Set the seed of what the updates leave out in the next training step."""
        for updates in self._updates:
            updates.begin_step(seed)

    def merged(self) -> Backbone:
        """Return a backbone of the same features whose weights contain the updates."""
        clip = _sharing_copy(self.clip)
        merge_updates(clip)
        merged = Backbone(clip, **_settings_of(self))
        _take_preprocess(merged, self)
        return merged


def _sharing_copy(clip: nn.Module) -> nn.Module:
    """Copy the modules of a model, which share the weights with the original's."""
    memo: dict[int, Any] = {id(shared): shared for shared in (*clip.parameters(), *clip.buffers())}
    return copy.deepcopy(clip, memo)


def _take_preprocess(backbone: Backbone, other: Backbone) -> None:
    """Set the preprocessing of a backbone to the other's, unless that was given as code."""
    if other.preprocess_settings is not None:
        backbone.set_preprocess(other.preprocess_settings)


def _settings_of(backbone: Backbone) -> dict[str, Any]:
    """Arguments that build a backbone like this one around another model."""
    return {
        "preprocess": backbone.preprocess if backbone.preprocess_settings is None else None,
        "name": backbone.name,
        "pretrained": backbone.pretrained,
        "seed": backbone.seed,
        "patch_attention": backbone.patch_attention,
        "load_tokenizer": backbone.load_tokenizer,
    }


def towers(clip: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the transformers of an open_clip model, or what it has in their place: of images and of text."""
    text = getattr(clip, "text", clip)
    return cast(nn.Module, clip.visual), cast(nn.Module, text.transformer)
