"""Digest of an image's content, which doesn't depend on its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sotglp.errors import UnreadableImageError
from sotglp.files.atomic import os_reason
from sotglp.files.regular import read_regular
from sotglp.images.arrays import is_tensor
from sotglp.images.decode import open_image
from sotglp.images.image_set import ImageSource


def content_digest(source: ImageSource) -> str:
    """Return the SHA-256 of a file's bytes, a PIL image's upright RGB pixels or a tensor's values, in hexadecimal."""
    if isinstance(source, Path):
        try:
            return hashlib.sha256(read_regular(source)).hexdigest()
        except OSError as error:
            reason = f"opening it failed ({os_reason(error)}); check the path and its permissions"
            raise UnreadableImageError(str(source), reason) from error
    if is_tensor(source):
        import torch

        digest = hashlib.sha256(f"{source.dtype} {tuple(source.shape)}\n".encode())
        digest.update(source.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
    # Not the stored pixels: a palette, a transparent colour and an EXIF orientation change the picture.
    picture = open_image(source)
    return hashlib.sha256(f"{picture.mode} {picture.size}\n".encode() + picture.tobytes()).hexdigest()
