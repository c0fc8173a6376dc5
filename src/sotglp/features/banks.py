"""Views that are encoded once for all epochs, in memory or on disk, with the same numbers in both."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sotglp.console.progress import note, progress_bar
from sotglp.console.text import readable_size
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.features.cache import FeatureStore, entry_bytes
from sotglp.features.distributed import Processes
from sotglp.features.rows import EncodedImages, Row, round_row, stack_rows
from sotglp.features.views import Views
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet

MAX_MEMORY_BYTES = 8 * 2**30
"""Main memory that stored views may take; more of them go to disk, or are encoded again in each epoch."""


class Bank(Protocol):
    """Encoded views that can be looked up."""

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """Return one view each of B images, in the precision that :func:`sotglp.features.rows.round_row` chooses."""
        ...


class MemoryBank:
    """Views in main memory; raises a SotglpError if they would take more than ``MAX_MEMORY_BYTES``."""

    def __init__(self, views: Views, *, show_progress: bool = False) -> None:
        n_images, (n_patches, width) = len(views.images), views.patch_shape
        self._views, self._rows, self._n_bytes = views, dict[tuple[int, int], Row](), 0
        self._check_size(views.n_views * n_images * (4 * views.backbone.embed_dim + 2 * n_patches * width))
        with progress_bar("encoding views", views.n_views * n_images, "images", show=show_progress) as advance:
            for view in range(views.n_views):
                for index, *row in views.encode(view, range(n_images)):
                    self._rows[view, index] = round_row(*row)
                    # Rows in float32 take more than was expected.
                    self._n_bytes += sum(tensor.nbytes for tensor in self._rows[view, index])
                    self._check_size(self._n_bytes)
                    advance(1, "")

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """See :class:`Bank`."""
        rows = (self._rows[key] for key in zip(views.tolist(), indices.tolist(), strict=True))
        return stack_rows(rows, projected=self._views.projected)

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > MAX_MEMORY_BYTES:
            raise SotglpError(
                f"{self._views.n_views} stored views of {len(self._views.images)} images would take "
                f"{readable_size(n_bytes)} of memory, and the limit is {readable_size(MAX_MEMORY_BYTES)}: store them "
                "on disk with a cache folder, use fewer views, or views=0 to encode images again in each epoch"
            )


class DiskBank:
    """Views in the feature cache at ``root``: missing ones are encoded first, all are read when they are looked up.

    ``about`` is the description of ``views`` by :meth:`Views.describe`. All ``processes`` share the encoding.
    ``unreadable`` collects images that can't be decoded; None raises an UnreadableImageError at the first. ``readable``
    holds the indices of the others. Raises a SotglpError if the disk has too little space for the views, or they can't
    be written.
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
        self._cache = FeatureStore(root, about)
        self._contents = [_content(views.images, index, unreadable) for index in range(len(views.images))]
        missing = [
            (view, index)
            for view in range(views.n_views)
            for index, content in enumerate(self._contents)
            if content and not self._cache.has(self._key(view, index))
        ]
        processes.wait()  # so that all have found the same entries missing
        if missing and processes.is_first:
            _check_space(len(missing), views, root, show_progress)
        own = processes.share(missing)
        with progress_bar("encoding views", len(own), "images", show=show_progress) as advance:
            for view in range(views.n_views):
                indices = [index for of, index in own if of == view]
                for index, *row in views.encode(view, indices, unreadable):
                    self._cache.write(self._key(view, index), *row)
                    advance(1, "")
        processes.wait()
        self.readable = np.array(
            [i for i, content in enumerate(self._contents) if content and self._cache.has(self._key(0, i))],
            dtype=np.int64,
        )

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """See :class:`Bank`."""
        rows = (self._row(view, index) for view, index in zip(views.tolist(), indices.tolist(), strict=True))
        return stack_rows(rows, projected=self._views.projected)

    def _row(self, view: int, index: int) -> Row:
        key = self._key(view, index)
        row = self._cache.read(key)
        if row is None:
            # Damaged, or pruned meanwhile.
            for _, *encoded in self._views.encode(view, [index]):
                self._cache.write(key, *encoded)
            row = self._cache.read(key)
        if row is None:
            raise SotglpError(
                f"the features of {self._views.images.name(index)} disappear from {self._cache.root} as soon as they "
                "are written: choose another folder with --cache-dir, or use --no-cache"
            )
        return row

    def _key(self, view: int, index: int) -> str:
        seed = self._views.seed
        return FeatureStore.key(self._contents[index], None if seed is None else (seed, view, index))


def fill_bank(views: Views, cache_dir: Path | None, processes: Processes, *, show_progress: bool = False) -> Bank:
    """Encode views, to disk if there is a cache folder and :meth:`Views.describe` describes them, else to memory."""
    about = views.describe() if cache_dir else None
    if cache_dir is None or about is None:
        return MemoryBank(views, show_progress=show_progress)
    return DiskBank(views, about, cache_dir, processes, show_progress=show_progress)


def _content(images: ImageSet, index: int, unreadable: list[UnreadableImageError] | None) -> str:
    """Digest of an image, or an empty string if it can't be read."""
    try:
        return content_digest(images.images[index])
    except UnreadableImageError as error:
        named = UnreadableImageError(images.name(index), error.reason)
        if unreadable is None:
            raise named from error
        unreadable.append(named)
        return ""


def _check_space(n_missing: int, views: Views, root: Path, show: bool) -> None:
    """Report how much will be written, and reject what does not fit on the disk."""
    size = n_missing * entry_bytes(views.backbone.embed_dim, *views.patch_shape)
    parent = next((folder for folder in (root, *root.parents) if os.path.isdir(folder)), Path())
    free = shutil.disk_usage(parent).free
    if size > free:
        raise SotglpError(
            f"{n_missing} encoded views would take {readable_size(size)} in {root}, where {readable_size(free)} are "
            "free: use fewer views, another --cache-dir, or --no-cache"
        )
    note(f"writing {n_missing} encoded views, {readable_size(size)}, to {root}", show=show)
