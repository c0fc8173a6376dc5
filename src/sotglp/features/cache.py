"""Features of the frozen image encoder on disk, found again by weights, preprocessing and image content."""

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
from sotglp.files.atomic import os_reason, place_file

FORMAT_VERSION = 1
LABEL_FILE = "about.json"
VERSION_KEY = "sotglp_features"
CHECKSUM_KEY = "crc32"
LARGEST_HALF = torch.finfo(torch.float16).max

SECONDS_PER_DAY = 86400.0


class FeatureStore:
    """Image features and patch tokens of one backbone and one preprocessing, one file for each view of an image.

    Entries may be written, read and pruned by any number of processes at once. Making the object writes nothing.

    Parameters
    ----------
    root : Path
        Folder of the cache; made with the first entry.
    about : mapping
        All that the features depend on beside the image, in values that JSON knows: the weights' fingerprint,
        preprocessing, precision, what the patch tokens are. Another mapping is another shelf below ``root``.

    Attributes
    ----------
    path : Path
        The shelf: the folder that holds the entries and, in about.json, ``about``.

    Raises
    ------
    SotglpError
        If the shelf's about.json says something else than ``about``.
    """

    def __init__(self, root: Path, about: Mapping[str, Any]) -> None:
        self.root = root
        self.path = root / shelf_name(about, FORMAT_VERSION)
        self._label = json.dumps({VERSION_KEY: FORMAT_VERSION, "about": dict(about)}, indent=2, sort_keys=True).encode()
        try:
            found = (self.path / LABEL_FILE).read_bytes()
        except OSError:
            # Nothing there, or a place that the first write will complain about.
            return
        if found != self._label:
            raise SotglpError(
                f"{self.path / LABEL_FILE} does not describe the features that belong there: remove the folder "
                f"{self.path}, or give another place with --cache-dir"
            )

    @staticmethod
    def key(content: str, view: Sequence[int] | None) -> str:
        """Name of an entry, 64 hexadecimal digits.

        Parameters
        ----------
        content : str
            What :func:`content_digest` says of the image.
        view : sequence of int or None
            Numbers that a random view follows from, such as seed, view and index; None for the centre crop.
        """
        numbers = None if view is None else [int(number) for number in view]
        return hashlib.sha256(json.dumps([content, numbers]).encode()).hexdigest()

    def has(self, key: str) -> bool:
        """Whether there is an entry; :meth:`read` may still find it broken."""
        return os.path.isfile(self._file(key))

    def write(self, key: str, image_features: Tensor, patch_tokens: Tensor) -> None:
        """Keep the features of one view; an entry that is there already is replaced.

        Parameters
        ----------
        key : str
            See :meth:`key`.
        image_features : Tensor, shape (d,)
            Kept in float32.
        patch_tokens : Tensor, shape (P, W)
            Kept in float16.

        Raises
        ------
        SotglpError
            If the numbers are not finite or too large for half precision, or the disk refuses the write.
        """
        if not bool(torch.isfinite(image_features).all()):
            raise SotglpError(
                "image features that are not finite can't be kept in the feature cache: give other weights or another "
                "--precision"
            )
        # Written so that NaN is refused too.
        if not bool((patch_tokens.abs() <= LARGEST_HALF).all()):
            raise SotglpError(
                "patch tokens that are not finite or go beyond 65504 can't be kept in the feature cache, which holds "
                "them in half precision: use --no-cache"
            )
        file = self._file(key)
        content = _packed(_entry_name(file), image_features, patch_tokens)
        try:
            self._put_label()
            if file.is_dir():
                # Left by accident if it is empty; otherwise the error says that it is not.
                file.rmdir()
            place_file(file, lambda beside: beside.write_bytes(content), force=True, durable=False)
            # Someone who found the shelf empty may have cleared it away, label and all, before the entry came.
            self._put_label()
        except OSError as error:
            raise SotglpError(
                f"features can't be kept in {self.root} ({os_reason(error)}): make room there or give another folder "
                "with --cache-dir, or use --no-cache"
            ) from error

    def read(self, key: str) -> tuple[Tensor, Tensor] | None:
        """Image features (d,) float32 and patch tokens (P, W) float16 of an entry; None if there is no whole one.

        A broken entry is removed, so that it is made again. A read counts as a use of the entry, which
        :func:`sotglp.features.prune.prune` goes by.
        """
        file = self._file(key)
        try:
            # Mapping the file is slower at this size, and a mapped file must not change or vanish on a network disk.
            content = file.read_bytes()
        except OSError:
            return None
        entry = _unpacked(_entry_name(file), content)
        # A disk that can only be read from still serves its entries.
        with suppress(OSError):
            if entry is None:
                file.unlink()
            elif time.time() - file.stat().st_mtime > SECONDS_PER_DAY:
                os.utime(file)
        return entry

    def _file(self, key: str) -> Path:
        return self.path / key[:2] / f"{key}.safetensors"

    def _put_label(self) -> None:
        label = self.path / LABEL_FILE
        if not label.exists():
            place_file(label, lambda beside: beside.write_bytes(self._label), force=True, durable=False)


def entry_bytes(embed_dim: int, n_patches: int, patch_width: int) -> int:
    """Size of an entry's file in bytes, known before anything is written.

    Parameters
    ----------
    embed_dim : int
        Width d of the image features.
    n_patches, patch_width : int
        Number P and width W of the patch tokens.
    """
    return len(_packed("", torch.zeros(embed_dim), torch.zeros(n_patches, patch_width)))


def default_cache_dir() -> Path:
    """Folder of the cache: $SOTGLP_CACHE, else sotglp in $XDG_CACHE_HOME, else ~/.cache/sotglp.

    Raises
    ------
    SotglpError
        If there is no home folder.
    """
    if own := os.environ.get("SOTGLP_CACHE"):
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says that a relative path is to be ignored.
    if shared.is_absolute():
        return shared / "sotglp"
    try:
        return Path.home() / ".cache" / "sotglp"
    except RuntimeError as error:
        raise SotglpError(
            "there is no home folder to keep features in: give one with --cache-dir or SOTGLP_CACHE, or use --no-cache"
        ) from error


def shelf_name(about: Mapping[str, Any], version: int) -> str:
    """Folder name of the entries that depend on ``about``, as a version of this format names it."""
    canonical = json.dumps([version, dict(about)], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _entry_name(file: Path) -> str:
    return f"{file.parts[-3]}/{file.stem}"


def _packed(name: str, image_features: Tensor, patch_tokens: Tensor) -> bytes:
    tensors = {
        "image_features": image_features.detach().to("cpu", torch.float32).contiguous(),
        "patch_tokens": patch_tokens.detach().to("cpu", torch.float16).contiguous(),
    }
    content: bytes = safetensors.torch.save(tensors, {CHECKSUM_KEY: _checksum(name, *tensors.values())})
    return content


def _unpacked(name: str, content: bytes) -> tuple[Tensor, Tensor] | None:
    try:
        tensors = safetensors.torch.load(content)
        image_features, patch_tokens = tensors["image_features"], tensors["patch_tokens"]
        # safetensors tells the metadata of files only, not of bytes.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        checksum = header["__metadata__"][CHECKSUM_KEY]
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    layout = (image_features.dtype, image_features.ndim, patch_tokens.dtype, patch_tokens.ndim)
    if layout != (torch.float32, 1, torch.float16, 2) or checksum != _checksum(name, image_features, patch_tokens):
        return None
    return image_features, patch_tokens


def _checksum(name: str, image_features: Tensor, patch_tokens: Tensor) -> str:
    # 0.07 ms for 196 patches of width 768, where SHA-256 takes 0.17 ms; it has to find accidents, not forgeries.
    # The name is in it so that an entry that was moved to another name is not taken for that one.
    value = zlib.crc32(f"{name} {tuple(image_features.shape)} {tuple(patch_tokens.shape)}".encode())
    for tensor in (image_features, patch_tokens):
        value = zlib.crc32(_raw(tensor), value)
    return f"{value:08x}"


def _raw(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
