"""The models whose weights ship with the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sotglp.backbone import photo, tiny

TAG = "embedded"
"""Tag of their weights."""


@dataclass(frozen=True)
class EmbeddedModel:
    """An architecture with packaged weights.

    Attributes
    ----------
    config : dict
        open_clip's configuration of the architecture.
    build : callable
        ``build(seed, *, image_size=None, quick_gelu=False)`` returns the architecture with random weights.
    load : callable
        ``load(*, image_size=None)`` returns it with the packaged weights.
    fingerprint : str
        Fingerprint of the packaged weights, by :func:`sotglp.backbone.weights.fingerprint`.
    """

    config: dict[str, Any]
    build: Callable[..., nn.Module]
    load: Callable[..., nn.Module]
    fingerprint: str


EMBEDDED: Mapping[str, EmbeddedModel] = {
    photo.NAME: EmbeddedModel(photo.CONFIG, photo.build_photo, photo.load_photo, photo.FINGERPRINT),
    tiny.NAME: EmbeddedModel(tiny.CONFIG, tiny.build_tiny, tiny.load_tiny, tiny.FINGERPRINT),
}
"""The embedded models by name."""
