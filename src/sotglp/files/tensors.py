"""Tensors and a JSON record in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file
from sotglp.files.header import METADATA_KEY, open_tensor_file

_PLAIN_TYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool}
)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any], *, force: bool) -> None:
    """Write tensors and a JSON record as safetensors, whole or not at all."""
    # safetensors keeps no order among several metadata keys; a single one keeps equal models equal byte for byte.
    metadata = {METADATA_KEY: json.dumps(record, sort_keys=True)}
    content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()}, metadata)
    write_file(path, lambda beside: beside.write_bytes(content), force=force)


def read_packaged_tensors(folder: str, file: str) -> dict[str, Tensor]:
    """Read a safetensors file of the package."""
    tensors: dict[str, Tensor] = safetensors.torch.load((resources.files("sotglp") / folder / file).read_bytes())
    return tensors


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote: the tensors and the record.

    Tensors with NaN or infinity are rejected.
    """
    with open_tensor_file(path, kind, "pt") as (file, record):
        # Copies, since the tensors of safetensors are the pages of the file: whoever writes to it later would change
        # them, and whoever shortens it would end the process (SIGBUS).
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if tensor.dtype not in _PLAIN_TYPES or not bool(tensor.isfinite().all()):
            raise SotglpError(
                f"{path} can't be read as a {kind}: its {name[:60]} holds something else than finite numbers of a type "
                "that sotglp writes, so it is damaged"
            )
    return tensors, record
