"""The feature cache: features on disk, keyed by weights, preprocessing and image content."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.features.cache_folder import LABEL_FILE, SECONDS_PER_DAY, group_name, label_content, lock_cache
from sotglp.features.rows import Row, round_row
from sotglp.files.atomic import os_reason, place_file

CHECKSUM_KEY = "crc32"


class FeatureStore:
    """One group of the cache: the features of one backbone and one preprocessing, one file per view of an image.

    ``about`` holds all that the features depend on besides the image, as JSON values: fingerprint of the weights,
    preprocessing, precision, kind of patches. Each mapping has its own group in ``path``, a folder below ``root``. The
    constructor writes nothing. Any number of processes may write, read and prune entries at once.
    """

    def __init__(self, root: Path, about: Mapping[str, Any]) -> None:
        self.root = root
        self.path = root / group_name(about)
        self._label = label_content(about)

    @staticmethod
    def key(content: str, view: Sequence[int] | None) -> str:
        """Return the name of an entry, 64 hexadecimal digits, for a :func:`sotglp.images.digest.content_digest`.

        ``view`` holds the numbers that determine a random view, such as seed, view and index; None is the centre crop.
        """
        numbers = None if view is None else [int(number) for number in view]
        return hashlib.sha256(json.dumps([content, numbers]).encode()).hexdigest()

    def has(self, key: str) -> bool:
        """Return whether there is an entry; :meth:`read` may still find it damaged."""
        return os.path.isfile(self._file(key))

    def write(self, key: str, image_features: Tensor, patches: Tensor) -> None:
        """Store the features of one view, (d,) and (P, W), rounded by :func:`round_row`; replace an existing entry."""
        file = self._file(key)
        content = _pack(_entry_name(file), round_row(image_features, patches))
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with lock_cache(self.root):
                self._write_label()
                place_file(file, lambda beside: beside.write_bytes(content), force=True, durable=False)
        except OSError as error:
            raise SotglpError(
                f"features can't be written to {self.root} ({os_reason(error)}): free disk space, choose another "
                "folder with --cache-dir, or use --no-cache"
            ) from error

    def read(self, key: str) -> Row | None:
        """Return the row of an entry, or None if it is missing or damaged; a damaged one is removed.

        A read counts as a use of the entry, by which :func:`sotglp.features.prune.prune` orders entries.
        """
        file = self._file(key)
        try:
            # Mapping the file is slower at this size, and a mapped file must not change or vanish on a network disk.
            content = file.read_bytes()
        except OSError:
            return None
        row = _unpack(_entry_name(file), content)
        # A read-only disk can still be read from.
        with suppress(OSError):
            if row is None:
                file.unlink()
            elif time.time() - file.stat().st_mtime > SECONDS_PER_DAY:
                os.utime(file)
        return row

    def _file(self, key: str) -> Path:
        return self.path / key[:2] / f"{key}.safetensors"

    def _write_label(self) -> None:
        label = self.path / LABEL_FILE
        if not os.path.exists(label) or label.read_bytes() != self._label:
            place_file(label, lambda beside: beside.write_bytes(self._label), force=True, durable=False)


def entry_bytes(embed_dim: int, n_patches: int, patch_width: int) -> int:
    """Return the size of an entry in bytes, for image features (d,) and patches (P, W) in float16."""
    patches = torch.zeros(n_patches, patch_width, dtype=torch.float16)
    return len(_pack("", (torch.zeros(embed_dim), patches)))


def _entry_name(file: Path) -> str:
    return f"{file.parts[-3]}/{file.stem}"


def _pack(name: str, row: Row) -> bytes:
    tensors = dict(zip(("image_features", "patch_tokens"), row, strict=True))
    content: bytes = safetensors.torch.save(tensors, {CHECKSUM_KEY: _checksum(name, row)})
    return content


def _unpack(name: str, content: bytes) -> Row | None:
    try:
        tensors = safetensors.torch.load(content)
        row = tensors["image_features"], tensors["patch_tokens"]
        # safetensors returns the metadata of files only, not of bytes.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        checksum = header["__metadata__"][CHECKSUM_KEY]
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    image_features, patches = row
    is_row = (image_features.dtype, image_features.ndim, patches.ndim) == (torch.float32, 1, 2)
    is_row = is_row and patches.dtype in (torch.float16, torch.float32)
    return row if is_row and checksum == _checksum(name, row) else None


def _checksum(name: str, row: Row) -> str:
    # CRC-32 takes 0.07 ms for 196 patches of width 768, SHA-256 0.17 ms; it has to find accidents, not forgeries.
    # The name is part of it so that an entry that was moved to another name is not accepted there.
    image_features, patches = row
    value = zlib.crc32(f"{name} {tuple(image_features.shape)} {tuple(patches.shape)}".encode())
    for tensor in row:
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
