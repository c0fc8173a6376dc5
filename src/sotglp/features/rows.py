"""Features of images, and the precision that they are stored in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from sotglp.errors import SotglpError

Row = tuple[Tensor, Tensor]
"""Image features (d,) in float32, and patches (P, W) in float16 or float32."""

MAX_FLOAT16 = torch.finfo(torch.float16).max


class EncodedImages(NamedTuple):
    """Features of B images from a backbone's image tower.

    ``image_features`` (B, d), and ``patch_tokens`` (B, P, W), or (B, P, d) in the joint space if they are
    ``projected``.
    """

    image_features: Tensor
    patch_tokens: Tensor
    projected: bool = False

    def to(self, device: torch.device) -> EncodedImages:
        """Return them on another device."""
        return self._replace(image_features=self.image_features.to(device), patch_tokens=self.patch_tokens.to(device))

    def rounded(self) -> EncodedImages:
        """Return them as a bank or a cache would, rounded by :func:`round_row`, on the CPU."""
        return stack_rows(map(round_row, self.image_features, self.patch_tokens), projected=self.projected)


def round_row(image_features: Tensor, patches: Tensor) -> Row:
    """Round image features (d,) and patches (P, W) or (P, d) to the precision that they are stored in, on the CPU.

    Patches are stored in float16, or in float32 where one of their values is beyond 65504. Raise a SotglpError if a
    value is NaN or infinite.
    """
    if not bool(image_features.isfinite().all() and patches.isfinite().all()):
        raise SotglpError(
            "the backbone computed features that are not finite: use --precision fp32 (precision='fp32'), or other "
            "weights"
        )
    dtype = torch.float16 if bool((patches.abs() <= MAX_FLOAT16).all()) else torch.float32
    return _copy(image_features, torch.float32), _copy(patches, dtype)


def stack_rows(rows: Iterable[Row], *, projected: bool) -> EncodedImages:
    """Stack rows to a batch; its patches are in float32 where those of one row are."""
    image_features, patches = zip(*rows, strict=True)
    dtype = max((tensor.dtype for tensor in patches), key=lambda kind: kind.itemsize)
    return EncodedImages(torch.stack(image_features), torch.stack([tensor.to(dtype) for tensor in patches]), projected)


def _copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # A view of a batch would keep the whole batch in memory.
    return tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
