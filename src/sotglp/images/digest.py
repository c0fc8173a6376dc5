"""Digest of an image's content, which doesn't depend on its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sotglp.errors import ChangedImageError, UnreadableImageError
from sotglp.files.atomic import os_reason
from sotglp.files.regular import read_regular
from sotglp.images.arrays import is_tensor
from sotglp.images.decode import open_image
from sotglp.images.formats import HEAD_BYTES, may_be_deep
from sotglp.images.image_set import ImageSource
from sotglp.images.stored import StoredImage
from sotglp.images.value_range import ValueRanges


def read_unchanged(path: Path, digest: str, ranges: ValueRanges | None = None) -> bytes:
    """Return the content of an image file, whose :func:`content_digest` was ``digest``.

    Raise a ChangedImageError if it is another one now, and an UnreadableImageError if the file can't be read.
    """
    content = _content(path)
    if _file_digest(content, ranges) != digest:
        raise ChangedImageError(str(path), "it changes while it is read; repeat the command")
    return content


def content_digest(source: ImageSource, ranges: ValueRanges | None = None) -> str:
    """Return the SHA-256 of a file's bytes, a PIL image's upright RGB pixels or a tensor's values, in hexadecimal.

    For a file that may hold gray of more than 8 bits, the ``ranges`` that scale it are part of its digest.
    """
    if isinstance(source, Path):
        return _file_digest(_content(source), ranges)
    if is_tensor(source):
        import torch

        digest = hashlib.sha256(f"{source.dtype} {tuple(source.shape)}\n".encode())
        digest.update(source.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
    if isinstance(source, StoredImage):
        return content_digest(source.patch_tokens)
    # Not the stored pixels: a palette, a transparent colour and an EXIF orientation change the picture.
    picture = open_image(source, ranges)
    return hashlib.sha256(f"{picture.mode} {picture.size}\n".encode() + picture.tobytes()).hexdigest()


def _file_digest(content: bytes, ranges: ValueRanges | None) -> str:
    # A cache must not mix features of values that were scaled differently.
    scaling = f"\nranges {sorted((ranges or {}).items())}".encode() if may_be_deep(content[:HEAD_BYTES]) else b""
    return hashlib.sha256(content + scaling).hexdigest()


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        reason = f"opening it failed ({os_reason(error)}); check the path and its permissions"
        raise UnreadableImageError(str(path), reason) from error
