"""Where and in which number format the backbone computes."""

from __future__ import annotations

import os

import torch

from sotglp.errors import SotglpError
from sotglp.settings import Precision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU, or the CPU where there is none.

    Raises
    ------
    SotglpError
        If the device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # One of several processes on a machine has a GPU of its own.
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SotglpError(f"the device {name!r} can't be used here: choose cpu, cuda or auto") from error
    return device


def half_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The half-precision format to compute in, or None for float32; ``auto`` is fp16 on a GPU alone."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return _DTYPES.get(precision)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Mixed precision for the backbone; transport and softmax leave it for float32 by themselves."""
    dtype = half_dtype(device, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
