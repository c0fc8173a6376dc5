"""Views encoded once for all epochs, in memory or on disk; their patches in half precision either way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone.precision import half_dtype
from sotglp.console.progress import note, progress_bar
from sotglp.console.text import readable_size
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.features.cache import FeatureStore, entry_bytes
from sotglp.features.distributed import Processes
from sotglp.features.encode import EncodedImages, encode_batches, in_order
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet
from sotglp.settings import Precision

LARGEST_MEMORY = 8 * 2**30
"""Bytes of main memory that views may take; beyond it they go to disk, or must be encoded anew each epoch."""


@dataclass(frozen=True)
class Views:
    """Which views of which images are encoded, and how.

    Attributes
    ----------
    backbone : Backbone
        Encodes.
    images : ImageSet
        n images.
    transform : callable
        Image to tensor (3, H, W).
    seed : int or None
        Seed of a transform that crops and flips at random; None for the backbone's own preprocessing.
    n_views : int
        Views of each image, V.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Arithmetic of the backbone.
    workers : int
        Processes that decode.
    projected : bool
        Patches are kept in the joint space, (P, d), not as tokens (P, W): for models that learn no projection.
    """

    backbone: Backbone
    images: ImageSet
    transform: Callable[[Any], Tensor]
    seed: int | None = None
    n_views: int = 1
    precision: Precision = "auto"
    workers: int = 0
    projected: bool = False

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Patches of a view and their width, (P, W) or (P, d)."""
        width = self.backbone.embed_dim if self.projected else self.backbone.patch_width
        return self.backbone.n_patches, width

    def encode(
        self,
        view: int,
        indices: Sequence[int],
        keep: Callable[[int, int, Tensor, Tensor], None],
        advance: Callable[[int, str], None] = lambda *_: None,
        unreadable: list[UnreadableImageError] | None = None,
    ) -> None:
        """Encode one view of some images; ``keep`` gets view, index, image features (d,) and patches (P, W) of each."""
        chosen = np.asarray(indices, dtype=np.int64)
        for batch, encoded in encode_batches(
            self.backbone,
            self.images,
            self.transform,
            [chosen[part] for part in in_order(len(chosen))],
            precision=self.precision,
            workers=self.workers,
            seed=self.seed,
            epoch=view,
            unreadable=unreadable,
        ):
            patches = encoded.patch_tokens
            if self.projected:
                patches = self.backbone.project_patches(patches)
            for index, features, own_patches in zip(batch.tolist(), encoded.image_features, patches, strict=True):
                keep(view, index, features, own_patches)
            advance(len(batch), "")

    def describe(self) -> dict[str, Any] | None:
        """All that the features depend on beside the images; None if that can't be told in words."""
        preprocess = self.backbone.preprocess_settings
        if preprocess is None:
            return None
        half = half_dtype(self.backbone.device, self.precision)
        # Said only where it is not the default, so that what was kept before there was a choice is still found.
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


class Bank(Protocol):
    """Encoded views that can be looked up."""

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """One view each of B images, encoded; patches in float16."""
        ...


class MemoryBank:
    """Views in main memory.

    Raises
    ------
    SotglpError
        If they would take more than ``LARGEST_MEMORY`` bytes.
    """

    def __init__(self, views: Views, *, show_progress: bool = False) -> None:
        n_images, embed_dim = len(views.images), views.backbone.embed_dim
        n_patches, width = views.patch_shape
        needed = views.n_views * n_images * (4 * embed_dim + 2 * n_patches * width)
        if needed > LARGEST_MEMORY:
            raise SotglpError(
                f"{views.n_views} stored views of {n_images} images would take {readable_size(needed)} of memory: keep "
                "them on disk with a cache folder, use fewer views, or views=0 to encode anew each epoch"
            )
        self._projected = views.projected
        self.image_features = torch.empty(views.n_views, n_images, embed_dim)
        self.patches = torch.empty(views.n_views, n_images, n_patches, width, dtype=torch.float16)
        with progress_bar("encoding views", views.n_views * n_images, "images", show=show_progress) as advance:
            for view in range(views.n_views):
                views.encode(view, range(n_images), self._keep, advance)

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """See :class:`Bank`."""
        return EncodedImages(self.image_features[views, indices], self.patches[views, indices], self._projected)

    def _keep(self, view: int, index: int, image_features: Tensor, patches: Tensor) -> None:
        self.image_features[view, index] = image_features
        self.patches[view, index] = patches


class DiskBank:
    """Views in a feature store: those that are missing are encoded first, all are read when they are looked up.

    Parameters
    ----------
    views : Views
        What is wanted.
    about : mapping
        From :meth:`Views.describe`.
    root : Path
        Folder of the cache.
    processes : Processes
        Those that fill the store together.
    unreadable : list or None
        Collects images that can't be decoded; None raises at the first.
    show_progress : bool, default False
        Tell how much is written, and show a progress bar on a terminal.

    Attributes
    ----------
    readable : NDArray
        Positions of the images that could be read.

    Raises
    ------
    SotglpError
        If the disk has no room for the views, or they can't be written.
    UnreadableImageError
        At an image that can't be decoded, unless ``unreadable`` collects it.
    """

    def __init__(
        self,
        views: Views,
        about: dict[str, Any],
        root: Path,
        processes: Processes,
        *,
        unreadable: list[UnreadableImageError] | None = None,
        show_progress: bool = False,
    ) -> None:
        self._views = views
        self._store = FeatureStore(root, about)
        self._contents = [_content(views.images, index, unreadable) for index in range(len(views.images))]
        missing = [
            (view, index)
            for view in range(views.n_views)
            for index, content in enumerate(self._contents)
            if content and not self._store.has(self._key(view, index))
        ]
        processes.wait()  # so that all have seen the same gaps
        if missing and processes.is_first:
            _announce(len(missing), views, root, show_progress)
        own = processes.share(missing)
        with progress_bar("encoding views", len(own), "images", show=show_progress) as advance:
            for view in range(views.n_views):
                indices = [index for of, index in own if of == view]
                views.encode(view, indices, self._keep, advance, unreadable)
        processes.wait()
        self.readable = np.array(
            [i for i, content in enumerate(self._contents) if content and self._store.has(self._key(0, i))],
            dtype=np.int64,
        )

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """See :class:`Bank`."""
        entries = [self._entry(view, index) for view, index in zip(views.tolist(), indices.tolist(), strict=True)]
        image_features, patches = zip(*entries, strict=True)
        return EncodedImages(torch.stack(image_features), torch.stack(patches), self._views.projected)

    def _entry(self, view: int, index: int) -> tuple[Tensor, Tensor]:
        key = self._key(view, index)
        entry = self._store.read(key)
        if entry is None:
            # Broken, or pruned while we ran.
            self._views.encode(view, [index], self._keep)
            entry = self._store.read(key)
        if entry is None:
            raise SotglpError(
                f"features of {self._views.images.name(index)} vanish from {self._store.root} as soon as they are "
                "written: use another cache folder or none"
            )
        return entry

    def _key(self, view: int, index: int) -> str:
        seed = self._views.seed
        return FeatureStore.key(self._contents[index], None if seed is None else (seed, view, index))

    def _keep(self, view: int, index: int, image_features: Tensor, patches: Tensor) -> None:
        self._store.write(self._key(view, index), image_features, patches)


def fill_bank(views: Views, cache_dir: Path | None, processes: Processes, *, show_progress: bool = False) -> Bank:
    """Encode views, to disk where there is a cache folder and words for what the features depend on, else to memory.

    Raises
    ------
    SotglpError
        If there is no room for them.
    """
    about = views.describe() if cache_dir else None
    if cache_dir is None or about is None:
        return MemoryBank(views, show_progress=show_progress)
    return DiskBank(views, about, cache_dir, processes, show_progress=show_progress)


def _content(images: ImageSet, index: int, unreadable: list[UnreadableImageError] | None) -> str:
    """Digest of an image, or nothing where it can't be read."""
    try:
        return content_digest(images.images[index])
    except UnreadableImageError as error:
        if unreadable is None:
            raise UnreadableImageError(images.name(index), error.reason) from error
        unreadable.append(UnreadableImageError(images.name(index), error.reason))
        return ""


def _announce(n_missing: int, views: Views, root: Path, show: bool) -> None:
    """Tell how much will be written, and refuse what does not fit on the disk."""
    size = n_missing * entry_bytes(views.backbone.embed_dim, *views.patch_shape)
    parent = next((folder for folder in (root, *root.parents) if folder.is_dir()), Path())
    free = shutil.disk_usage(parent).free
    if size > free:
        raise SotglpError(
            f"{n_missing} encoded views would take {readable_size(size)} in {root}, where {readable_size(free)} are "
            "free: use fewer views, another --cache-dir, or --no-cache"
        )
    note(f"{n_missing} encoded views, {readable_size(size)}, go to {root}", show=show)
