"""Tensors and a JSON record in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file

METADATA_KEY = "sotglp"
NO_TENSOR = ("\0",)
MAX_HEADER_BYTES = 16 * 2**20
_PLAIN_TYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any], *, force: bool) -> None:
    """Write tensors and a JSON record as safetensors, whole or not at all."""
    # safetensors keeps no order among several metadata keys; a single one keeps equal models equal byte for byte.
    metadata = {METADATA_KEY: json.dumps(record, sort_keys=True)}
    content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()}, metadata)
    write_file(path, lambda beside: beside.write_bytes(content), force=force)


def read_tensors(path: Path, kind: str, prefix: str | tuple[str, ...] = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote: tensors whose names start with ``prefix``, and the record.

    Raises
    ------
    SotglpError
        If the file is missing, damaged, or not ``kind`` written by sotglp; if a tensor of it holds NaN or infinity.
    """
    # Unlike path.is_file(), this takes a name that no file can have, such as one too long, for one that is not there.
    if not os.path.isfile(path):
        raise SotglpError(f"there is no {kind} {path}")
    try:
        check_header_length(path, kind)
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise SotglpError(
                    f"{path} is a safetensors file, but no {kind} of sotglp: give one that `sotglp fit` wrote"
                )
            record = json.loads(metadata[METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    # The record's JSON may be nested deeper than Python reads.
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, SotglpError):
            raise
        reason = str(error)[:200]
        raise SotglpError(f"{path} can't be read as a {kind}: it is damaged or something else ({reason})") from error
    if not isinstance(record, dict):
        raise SotglpError(f"{path} can't be read as a {kind}: its record is damaged")
    for name, tensor in tensors.items():
        if tensor.dtype not in _PLAIN_TYPES or not bool(tensor.isfinite().all()):
            raise SotglpError(
                f"{path} can't be read as a {kind}: its {name[:60]} holds something else than finite numbers of a type "
                "that sotglp writes, so it is damaged"
            )
    return tensors, record


def check_header_length(path: Path, kind: str) -> None:
    """Refuse a safetensors file whose header is longer than MAX_HEADER_BYTES, before it is parsed.

    Raises
    ------
    SotglpError
        Naming the file as ``kind``.
    OSError
        If the file can't be opened.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise SotglpError(
            f"{path} can't be read as a {kind}: its header would have {length} bytes, and {MAX_HEADER_BYTES} is the "
            "most that is read; it is damaged or something else"
        )
