"""The folder of a pretraining run: its recipe, its curve, and the state that it resumes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sotglp.errors import SotglpError
from sotglp.files.atomic import os_reason, write_file


def pack_state(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    """Return everything that a run needs to resume, as copied tensors by name."""
    tensors = {f"{key}.{name}": tensor for key, one in modules.items() for name, tensor in one.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    tensors["step"] = torch.tensor(step)
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def restore_state(
    modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> int:
    """Restore modules and optimizer from what :func:`pack_state` returned, and return the step."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

    for key, module in modules.items():
        module.load_state_dict(under(f"{key}."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("adam.").items():
        i, moment = name.split(".")
        moments.setdefault(int(i), {})[moment] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(tensors["step"])


def check_recipe(path: Path, recipe: Any, *, is_begun: bool) -> None:
    """Record the recipe of a folder, or reject one that differs from the recorded recipe."""
    wanted = asdict(recipe)
    if path.exists():
        recorded = _read_json(path, _read_bytes(path))
        changed = [name for name in wanted | recorded if recorded.get(name, ...) != wanted.get(name, ...)]
        if changed:
            raise SotglpError(
                f"{path.parent} contains a run of another recipe ({', '.join(changed)}): choose another folder, or "
                "repeat the same settings to resume"
            )
    elif is_begun:
        raise SotglpError(f"{path.parent} contains a run without its {path.name}: choose another folder")
    write_text(path, json.dumps(wanted, indent=1))


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Read the curve of a run, one JSON object a line."""
    curve = [_read_json(path, line) for line in _read_bytes(path).splitlines()]
    if not all({"step", "seconds"} <= set(one) for one in curve):
        raise SotglpError(f"{path} is damaged: choose another folder")
    return curve


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SotglpError(f"{path} can't be read ({os_reason(error)}): choose another folder") from error


def _read_json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise SotglpError(f"{path} is damaged: choose another folder")
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    write_file(path, lambda beside: beside.write_text(text, encoding="utf-8"), force=True)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    content = save(tensors)
    write_file(path, lambda beside: beside.write_bytes(content), force=True)
