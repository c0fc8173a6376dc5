"""Device, threads and number format of the backbone."""

from __future__ import annotations

import os
import warnings

import torch

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.settings import Precision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is the first GPU, or the CPU if there is none.

    Raise a SotglpError if the device is unknown, not available, or holds no values, like ``meta``.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # Each process of a run on one machine uses another GPU.
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise SotglpError(f"the device {name!r} isn't available: choose cpu, cuda or auto") from error
    if device.type == "cpu":
        _warn_of_spinning_threads()
    return device


def _warn_of_spinning_threads() -> None:
    """Emit a SotglpWarning if torch was imported before sotglp, so that its threads spin, and the cores are shared."""
    n_cores = os.cpu_count() or 1
    # Windows has no load average.
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if "OMP_WAIT_POLICY" not in os.environ and torch.get_num_threads() > 1 and load > n_cores:
        warnings.warn(
            f"torch was imported before sotglp, so its threads spin while they wait, and {load:.1f} processes share "
            f"{n_cores} cores (load average), which makes a fit several times slower: import sotglp first, or set "
            "OMP_WAIT_POLICY=PASSIVE",
            SotglpWarning,
            stacklevel=3,
        )


def half_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the half-precision format to compute in, or None for float32; ``auto`` is fp16 on a GPU only."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return _DTYPES.get(precision)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context of mixed precision for the backbone; transport and softmax switch to float32 themselves."""
    dtype = half_dtype(device, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
