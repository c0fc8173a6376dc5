"""Views that are encoded once for all epochs, in memory or on disk, with the same numbers in both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sotglp.console.progress import note, progress_bar
from sotglp.console.text import readable_size
from sotglp.errors import ChangedImageError, SotglpError, UnreadableImageError
from sotglp.features.cache import FeatureStore, entry_bytes
from sotglp.features.distributed import Processes
from sotglp.features.rows import EncodedImages, Row, round_row, stack_rows
from sotglp.features.view_cache import CacheDir, Store, ViewCache, check_memory
from sotglp.features.views import Views
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet

MOST_READS = 3
"""Times that an image is read which changes between its digest and its decoding."""


class Bank(Protocol):
    """Encoded views that can be looked up."""

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """Return one view each of B images, in the precision that :func:`sotglp.features.rows.round_row` chooses."""
        ...


class MemoryBank:
    """Views in main memory that have no description to keep them by.

    Raises a SotglpError if they would take more than :data:`sotglp.features.view_cache.MAX_MEMORY_BYTES`.
    """

    def __init__(self, views: Views, *, show_progress: bool = False) -> None:
        n_images, n_bytes = len(views.images), 0
        self._views, self._rows = views, dict[tuple[int, int], Row]()
        what = f"{views.n_views} stored views of {n_images} images"
        check_memory(views.n_views * n_images * row_bytes(views), what)
        with progress_bar("encoding views", views.n_views * n_images, "images", show=show_progress) as advance:
            for view in range(views.n_views):
                for index, *row in views.encode(view, range(n_images)):
                    self._rows[view, index] = round_row(*row)
                    # Rows in float32 take more than was expected.
                    n_bytes += sum(tensor.nbytes for tensor in self._rows[view, index])
                    check_memory(n_bytes, what)
                    advance(1, "")

    def rows(self, views: NDArray[np.int64], indices: NDArray[np.int64]) -> EncodedImages:
        """See :class:`Bank`."""
        rows = (self._rows[key] for key in zip(views.tolist(), indices.tolist(), strict=True))
        return stack_rows(rows, projected=self._views.projected)


class CachedBank:
    """Views in a cache: missing ones are encoded first, all are read when they are looked up.

    ``cache_dir`` is its folder, or a :class:`ViewCache`. All ``processes`` share the encoding if there is a folder.
    ``unreadable`` collects images that can't be decoded; None raises an UnreadableImageError at the first. ``readable``
    holds the indices of the others. Raises a SotglpError if the views have no :meth:`Views.describe`, the disk or the
    memory has too little space for them, or they can't be written.
    """

    def __init__(
        self,
        views: Views,
        cache_dir: Path | ViewCache,
        processes: Processes,
        *,
        unreadable: list[UnreadableImageError] | None = None,
        show_progress: bool = False,
    ) -> None:
        about = views.describe()
        if about is None:
            raise SotglpError("the views depend on code or are encoded already, so that no cache can keep them")
        self._views, self._processes = views, processes
        if isinstance(cache_dir, ViewCache):
            self._root: Path | None = cache_dir.root
            self._cache: Store = cache_dir.store(about)
        else:
            self._root, self._cache = cache_dir, FeatureStore(cache_dir, about)
        self._contents = [_content(views.images, index, unreadable) for index in range(len(views.images))]
        missing = [
            (view, index)
            for view in range(views.n_views)
            for index, content in enumerate(self._contents)
            if content and not self._cache.has(self._key(view, index))
        ]
        processes.wait()  # so that all have found the same entries missing
        if not self._root:
            check_memory(len(missing) * row_bytes(views), f"{len(missing)} stored views")
        elif missing and processes.is_first:
            _check_space(len(missing), views, self._root, show_progress)
        own = processes.share(missing) if self._root else missing
        with progress_bar("encoding views", len(own), "images", show=show_progress) as advance:
            for view in range(views.n_views):
                indices = [index for of, index in own if of == view]
                for index, *row in self._encode(view, indices, unreadable):
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
            for _, *encoded in self._encode(view, [index], None):
                self._cache.write(self._key(view, index), *encoded)
            row = self._cache.read(self._key(view, index))
        if row is None:
            raise SotglpError(
                f"the features of {self._views.images.name(index)} disappear from {self._root} as soon as they "
                "are written: choose another folder with --cache-dir, or use --no-cache"
            )
        return row

    def _encode(
        self, view: int, indices: Sequence[int], unreadable: list[UnreadableImageError] | None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Encode one view of some images from the content that their digests are of.

        An image that changed since is encoded as it is now, under its new digest, unless other processes have the old
        one.
        """
        images, pending = self._views.images, list(indices)
        for attempts_left in reversed(range(MOST_READS if self._processes.count == 1 else 1)):
            changed: list[UnreadableImageError] = []
            encoded = replace(self._views, digests=tuple(self._contents)).encode(view, pending, changed)
            pending = []
            for row in encoded:
                yield row
                _report(changed, unreadable, allow_changes=attempts_left > 0)
            _report(changed, unreadable, allow_changes=attempts_left > 0)
            names = {error.source for error in changed}
            for index in [index for index in indices if images.name(index) in names]:
                self._contents[index] = _content(images, index, unreadable)
                pending += [index] if self._contents[index] else []
            if not pending:
                return

    def _key(self, view: int, index: int) -> str:
        seed, number = self._views.seed, self._views.images.number(index)
        return FeatureStore.key(self._contents[index], None if seed is None else (seed, view, number))


def fill_bank(views: Views, cache_dir: CacheDir, processes: Processes, *, show_progress: bool = False) -> Bank:
    """Encode views, to the cache if there is one and :meth:`Views.describe` describes them, else to memory."""
    if cache_dir is None or views.describe() is None:
        return MemoryBank(views, show_progress=show_progress)
    return CachedBank(views, cache_dir, processes, show_progress=show_progress)


def row_bytes(views: Views) -> int:
    """Return the size of one row in memory, with patches in float16."""
    n_patches, width = views.patch_shape
    return 4 * views.backbone.embed_dim + 2 * n_patches * width


def _content(images: ImageSet, index: int, unreadable: list[UnreadableImageError] | None) -> str:
    """Digest of an image, or an empty string if it can't be read."""
    try:
        return content_digest(images.images[index], images.ranges)
    except UnreadableImageError as error:
        named = UnreadableImageError(images.name(index), error.reason)
        if unreadable is None:
            raise named from error
        unreadable.append(named)
        return ""


def _report(
    found: list[UnreadableImageError], unreadable: list[UnreadableImageError] | None, *, allow_changes: bool
) -> None:
    """Move errors to ``unreadable``, or raise the first, but keep those of images to be encoded again."""
    final = [error for error in found if not (allow_changes and isinstance(error, ChangedImageError))]
    if final and unreadable is None:
        raise final[0]
    for error in final:
        found.remove(error)
        if unreadable is not None:
            unreadable.append(error)


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
