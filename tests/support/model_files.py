"""Model files that were changed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


def rewrite(path: Path, target: Path, change: Change) -> Path:
    """A copy of a model file whose record and tensors ``change`` changed in place."""
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["sotglp"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(record, tensors)
    safetensors.torch.save_file(tensors, target, {"sotglp": json.dumps(record)})
    return target


def with_entries(path: Path, target: Path, **entries: Any) -> Path:
    """A copy of a model file with other entries of the record; None removes one."""

    def change(record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        record |= entries
        for name in [name for name, value in entries.items() if value is None]:
            del record[name]

    return rewrite(path, target, change)
