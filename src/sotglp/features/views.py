"""Views of images through the frozen backbone, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone.precision import autocast, half_dtype
from sotglp.engines.threads import map_on_cores
from sotglp.errors import UnreadableImageError
from sotglp.features.rows import EncodedImages
from sotglp.images.image_set import ImageSet
from sotglp.images.stored import StoredImage
from sotglp.images.views import TrainingTransform, load_batches
from sotglp.settings import Precision, TrainConfig

ENCODING_BATCH = 32

Batch = tuple[NDArray[np.int64], EncodedImages]
"""Indices in the image set (B,), and these images encoded."""


def in_order(n_images: int, batch_size: int = ENCODING_BATCH) -> list[NDArray[np.int64]]:
    """Split the indices of all images into batches, in order."""
    return [np.arange(start, min(start + batch_size, n_images)) for start in range(0, n_images, batch_size)]


def encode_pixels(backbone: Backbone, pixels: Tensor, precision: Precision) -> EncodedImages:
    """Encode preprocessed images (B, 3, H, W), with gradients if the backbone learns."""
    with torch.set_grad_enabled(backbone.training), autocast(backbone.device, precision):
        return EncodedImages(*backbone.encode_image(pixels))


def training_views(backbone: Backbone, config: TrainConfig) -> Callable[[Any], Tensor]:
    """Return the transform of training images: random crop and flip, or the backbone's own centre crop."""
    return TrainingTransform(backbone.image_size, *backbone.normalisation) if config.augment else backbone.preprocess


@dataclass(frozen=True)
class Views:
    """V views of each of n images: which ones are encoded, and how.

    ``transform`` converts an image to a tensor (3, H, W). If it crops and flips at random, ``seed`` is its seed; None
    for the backbone's own preprocessing. ``workers`` processes decode. ``projected`` patches are in the joint space,
    (P, d), instead of tokens (P, W), for models that learn no projection. ``digests`` of the images, if they are given,
    make it an error that an image changes.
    """

    backbone: Backbone
    images: ImageSet
    transform: Callable[[Any], Tensor]
    seed: int | None = None
    n_views: int = 1
    precision: Precision = "auto"
    workers: int = 0
    projected: bool = False
    digests: tuple[str, ...] | None = None

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Number of patches of a view and their width, (P, W) or (P, d)."""
        width = self.backbone.embed_dim if self.projected else self.backbone.patch_width
        return self.backbone.n_patches, width

    def encode_batches(
        self,
        batches: Iterable[NDArray[np.int64]],
        view: int = 0,
        unreadable: list[UnreadableImageError] | None = None,
        *,
        ahead: bool = True,
    ) -> Iterator[Batch]:
        """Decode, transform and encode one view of the images, in batches of indices; see :func:`load_batches`.

        Images that are encoded already take their place in the batches. ``ahead`` lets each core of a CPU encode
        another batch, by :func:`map_on_cores`; without it, no batch is encoded before it is asked for.
        """
        if not self._has_stored:
            yield from self._encode_pixels(list(batches), view, unreadable, ahead=ahead)
            return
        is_stored = np.array([isinstance(image, StoredImage) for image in self.images.images])
        for batch in batches:
            kept, rest = batch[is_stored[batch]], batch[~is_stored[batch]]
            parts = list(self._encode_pixels([rest], view, unreadable, ahead=False)) if len(rest) else []
            if len(kept):
                parts.append((kept, self._stored(kept)))
            if parts:
                yield _joined(batch, parts)

    @property
    def _has_stored(self) -> bool:
        return any(isinstance(image, StoredImage) for image in self.images.images)

    def _stored(self, indices: NDArray[np.int64]) -> EncodedImages:
        stored = [image for index in indices if isinstance(image := self.images.images[index], StoredImage)]
        device = self.backbone.device
        features = torch.stack([image.image_feature for image in stored]).to(device)
        tokens = torch.stack([image.patch_tokens for image in stored]).to(device)
        if not self.projected:
            return EncodedImages(features, tokens)
        with torch.no_grad(), autocast(device, self.precision):
            return EncodedImages(features, self.backbone.project_patches(tokens), projected=True)

    def _encode_pixels(
        self,
        batches: list[NDArray[np.int64]],
        view: int,
        unreadable: list[UnreadableImageError] | None,
        *,
        ahead: bool,
    ) -> Iterator[Batch]:
        loaded = load_batches(
            self.images,
            self.transform,
            batches,
            workers=self.workers,
            seed=self.seed,
            epoch=view,
            digests=self.digests,
            unreadable=unreadable,
        )
        if ahead:
            yield from map_on_cores(self._encode_batch, loaded, self.backbone.device, n_items=len(batches))
        else:
            yield from map(self._encode_batch, loaded)

    def _encode_batch(self, loaded: tuple[NDArray[np.int64], Tensor]) -> Batch:
        indices, pixels = loaded
        encoded = encode_pixels(self.backbone, pixels, self.precision)
        if self.projected:
            with torch.set_grad_enabled(self.backbone.training):
                patches = self.backbone.project_patches(encoded.patch_tokens)
            encoded = encoded._replace(patch_tokens=patches, projected=True)
        return indices, encoded

    def encode(
        self, view: int, indices: Sequence[int], unreadable: list[UnreadableImageError] | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Encode one view of some images; yield index, image features (d,) and patches (P, W) of each."""
        chosen = np.asarray(indices, dtype=np.int64)
        parts = (chosen[part] for part in in_order(len(chosen)))
        for batch, encoded in self.encode_batches(parts, view, unreadable):
            yield from zip(batch.tolist(), encoded.image_features, encoded.patch_tokens, strict=True)

    def describe(self) -> dict[str, Any] | None:
        """Return all that the features depend on besides the images.

        None if there is nothing to keep them by: preprocessing was given as code, some images are encoded already, or a
        model changes the image tower.
        """
        preprocess = self.backbone.preprocess_settings
        if preprocess is None or self._has_stored or self.backbone.adapts_images:
            return None
        half = half_dtype(self.backbone.device, self.precision)
        # Only what differs from the default is named, so that entries from before there was a choice are still found.
        ordinary = ", ordinary attention" if self.backbone.patch_attention == "ordinary" else ""
        return {
            "backbone": self.backbone.name,
            "weights": self.backbone.fingerprint,
            "quick_gelu": self.backbone.quick_gelu,
            "preprocess": preprocess,
            "views": "centre crop" if self.seed is None else "random crop of 8 to 100 % and flip",
            "arithmetic": str(half or torch.float32).removeprefix("torch."),
            "patches": ("projected" if self.projected else "tokens") + ordinary,
        }


def _joined(batch: NDArray[np.int64], parts: Sequence[Batch]) -> Batch:
    """Join parts of a batch in its order, without images that could not be read."""
    indices = np.concatenate([own for own, _ in parts])
    place = {index: row for row, index in enumerate(indices.tolist())}
    rows = [place[index] for index in batch.tolist() if index in place]
    features = torch.cat([encoded.image_features.float() for _, encoded in parts])
    tokens = torch.cat([encoded.patch_tokens.float() for _, encoded in parts])
    return indices[rows], EncodedImages(features[rows], tokens[rows], parts[0][1].projected)
