"""Images that are given as one array or tensor of numbers: their shape, type and range of values."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sotglp.errors import SotglpError, SotglpWarning

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

MAX_NORMALISED = 20.0
"""Preprocessed pixels are a few standard deviations from a mean; larger numbers were not preprocessed."""


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Whether a value is a torch tensor, without importing torch where nothing else has."""
    if sys.modules.get("torch") is None:
        return False
    import torch

    return isinstance(value, torch.Tensor)


def rows_of(images: torch.Tensor | NDArray[Any]) -> tuple[torch.Tensor, ...]:
    """Split an array or tensor (B, 3, H, W) into its images (3, H, W), uint8 or float32.

    Floating point numbers are preprocessed images. A SotglpWarning reports numbers that probably are raw pixels. Raise
    a SotglpError if type or shape differ, with the conversion that is probably needed, or a pixel is NaN or infinite.
    """
    shape = tuple(images.shape)
    is_uint8 = str(images.dtype).endswith("uint8")
    is_float = images.is_floating_point() if is_tensor(images) else images.dtype.kind == "f"
    if len(shape) != 4 or shape[1] != 3 or not (is_uint8 or is_float):
        raise SotglpError(
            f"the images are numbers of type {images.dtype} and shape {shape}; give uint8 or floating point numbers "
            f"of shape (B, 3, H, W){_conversion(images, is_uint8 or is_float)}"
        )
    import torch

    if isinstance(images, torch.Tensor):
        rows = images.detach().to("cpu", torch.uint8 if is_uint8 else torch.float32)
    else:
        rows = torch.from_numpy(np.require(images, np.uint8 if is_uint8 else np.float32, ["C", "W"]))
    if rows.numel():
        _check_values(rows)
    return rows.unbind()


def _conversion(images: torch.Tensor | NDArray[Any], is_usable_type: bool) -> str:
    """Suggest the conversion of an array of another shape or type, as the end of a sentence; empty if unclear."""
    shape = tuple(images.shape)
    move = "permute" if is_tensor(images) else "transpose"
    if len(shape) == 4 and shape[1] == 3 and not is_usable_type:
        whole = "images.to(torch.uint8)" if is_tensor(images) else "images.astype(numpy.uint8)"
        return f": convert pixels from 0 to 255 with {whole}"
    if len(shape) == 4 and shape[3] == 3:
        return f": channels are last, so give images.{move}(0, 3, 1, 2)"
    if len(shape) == 4 and (4 in (shape[1], shape[3]) or 2 in (shape[1], shape[3])):
        return ": remove the alpha channel"
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        return ": repeat the gray channel three times"
    if len(shape) == 3 and shape[0] == 3:
        return ": this is one image, so give images[None]"
    if len(shape) == 3 and shape[2] == 3:
        return f": this is one image with channels last, so give images.{move}(2, 0, 1)[None]"
    if len(shape) == 3:
        return ": gray images need their channel three times, and one image needs a first axis of length 1"
    return ""


def _check_values(rows: torch.Tensor) -> None:
    """Reject NaN and infinity, and report numbers that are probably not preprocessed, or black as uint8."""
    import torch

    low, high = float(rows.min()), float(rows.max())
    if rows.dtype == torch.uint8:
        if 0 < high <= 1:
            _warn("uint8 numbers from 0 to 1, which are nearly black", "multiply them by 255")
        return
    if not np.isfinite([low, high]).all():
        broken = [i for i, row in enumerate(rows) if not bool(row.isfinite().all())]
        others = f", and {len(broken) - 1} more images do" if len(broken) > 1 else ""
        raise SotglpError(
            f"image {broken[0]} has pixels that are NaN or infinite{others}; replace them or leave it out"
        )
    raw = "give raw pixels as uint8 from 0 to 255, or preprocess them with backbone.preprocess"
    if low >= 0 and high <= 1:
        _warn("floating point numbers from 0 to 1, which are taken for preprocessed images", raw)
    elif max(-low, high) > MAX_NORMALISED:
        _warn(f"floating point numbers from {low:g} to {high:g}, which are taken for preprocessed images", raw)


def _warn(what: str, advice: str) -> None:
    warnings.warn(f"the images are {what}: {advice}", SotglpWarning, stacklevel=5)
