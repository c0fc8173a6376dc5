"""Encoded views that the steps of one run share, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from sotglp.console.text import readable_size
from sotglp.errors import SotglpError
from sotglp.features.cache import FeatureStore
from sotglp.features.cache_folder import group_name
from sotglp.features.rows import Row, round_row

MAX_MEMORY_BYTES = 8 * 2**30
"""Main memory that stored views may take; more of them go to disk, or are encoded again in each epoch."""

HELD_BYTES = 2**30
"""Main memory for views that are on disk too."""


class Store(Protocol):
    """Where the rows of one backbone and one preprocessing are kept, by :meth:`FeatureStore.key`."""

    def has(self, key: str) -> bool:
        """Return whether there is a row."""
        ...

    def write(self, key: str, image_features: Tensor, patches: Tensor) -> None:
        """Store the features of one view, (d,) and (P, W), rounded by :func:`round_row`."""
        ...

    def read(self, key: str) -> Row | None:
        """Return a row, or None if it is missing or damaged."""
        ...


class ViewCache:
    """Encoded views that a fit, its folds and its choices share, so that each view of an image is encoded once.

    With a folder, :class:`FeatureStore` keeps them on disk, and the first ``HELD_BYTES`` of them in memory too, so that
    each is read once. Without one they are in memory, and more than ``MAX_MEMORY_BYTES`` raise a SotglpError.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root
        self._rows: dict[tuple[str, str], Row] = {}
        self._n_bytes = 0

    @classmethod
    def of(cls, cache_dir: CacheDir) -> ViewCache:
        """Return the given cache, or a new one with or without a folder."""
        return cache_dir if isinstance(cache_dir, ViewCache) else cls(cache_dir)

    def store(self, about: Mapping[str, Any]) -> Store:
        """Return the rows that depend on ``about``; see :class:`FeatureStore`."""
        return _HeldStore(self, about)

    def fits(self, n_bytes: int) -> bool:
        """Return whether rows of that size can be kept."""
        return self.root is not None or self._n_bytes + n_bytes <= MAX_MEMORY_BYTES

    def row(self, name: tuple[str, str]) -> Row | None:
        """Return a row that is in memory."""
        return self._rows.get(name)

    def hold(self, name: tuple[str, str], row: Row) -> None:
        """Keep a row in memory; with a folder, only if there is room."""
        n_bytes = sum(tensor.nbytes for tensor in row)
        if name in self._rows or (self.root and self._n_bytes + n_bytes > HELD_BYTES):
            return
        self._n_bytes += n_bytes
        check_memory(self._n_bytes, f"{len(self._rows) + 1} stored views")
        self._rows[name] = row


CacheDir: TypeAlias = "Path | ViewCache | None"
"""A folder of the feature cache, a cache that several steps share, or no cache."""


class _HeldStore:
    """The rows of a :class:`ViewCache` that depend on the same ``about``."""

    def __init__(self, cache: ViewCache, about: Mapping[str, Any]) -> None:
        self._cache, self._group = cache, group_name(about)
        self._disk = FeatureStore(cache.root, about) if cache.root else None

    def has(self, key: str) -> bool:
        return self._cache.row((self._group, key)) is not None or (self._disk is not None and self._disk.has(key))

    def write(self, key: str, image_features: Tensor, patches: Tensor) -> None:
        if self._disk:
            self._disk.write(key, image_features, patches)
        self._cache.hold((self._group, key), round_row(image_features, patches))

    def read(self, key: str) -> Row | None:
        row = self._cache.row((self._group, key))
        if row is None and self._disk:
            row = self._disk.read(key)
            if row is not None:
                self._cache.hold((self._group, key), row)
        return row


def check_memory(n_bytes: int, what: str) -> None:
    """Raise a SotglpError if stored views of that size take too much memory."""
    if n_bytes > MAX_MEMORY_BYTES:
        raise SotglpError(
            f"{what} would take {readable_size(n_bytes)} of memory, and the limit is "
            f"{readable_size(MAX_MEMORY_BYTES)}: store them on disk with a cache folder, use fewer views, or "
            "views=0 to encode images again in each epoch"
        )
