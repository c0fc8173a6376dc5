"""The state of a fit after an epoch, from which a killed run goes on to the same result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.files.atomic import ClaimedError, claim, os_reason
from sotglp.files.tensors import read_tensors, write_tensors
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.settings import TrainConfig
from sotglp.training.history import checked_history

STATE_PREFIX = "optimizer."
CHECKSUM_KEY = "sha256"

# Settings that change how fast a run is, not what it computes.
_FREE_SETTINGS = {"workers"}


def run_identity(model: AdaptedModel, images: ImageSet, config: TrainConfig) -> str:
    """A digest of everything that a run's result depends on, so that no run goes on from another one's state."""
    parts = {
        "model": model.config.model_dump(),
        "training": config.model_dump(exclude=_FREE_SETTINGS),
        "classes": model.class_names,
        "backbone": [model.backbone.fingerprint, model.backbone.patch_attention],
        "images": [images.name(index) for index in range(len(images))],
        "labels": images.labels,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass
class Checkpoint:
    """A place for the state of one run.

    Attributes
    ----------
    path : Path
        The file.
    identity : str
        From :func:`run_identity`.
    """

    path: Path
    identity: str
    _claimed: IO[bytes] | None = field(default=None, init=False, repr=False, compare=False)

    def write(
        self,
        model: AdaptedModel,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        history: list[dict[str, float]],
    ) -> None:
        """Keep the state after ``len(history)`` epochs, in place of the one before.

        Raises
        ------
        SotglpError
            If another run that is still going keeps its state there, or the disk refuses the write.
        """
        tensors = model.kept_tensors()
        for name in list(tensors):
            for part, value in optimizer.state.get(getattr(model, name), {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{STATE_PREFIX}{part}.{name}"] = value
        record: dict[str, Any] = {"identity": self.identity, "history": history, "loss_scale": scaler.get_scale()}
        record[CHECKSUM_KEY] = _checksum(tensors, record)
        self._claim()
        write_tensors(self.path, tensors, record, force=True)
        self._claim()

    def read(
        self, model: AdaptedModel, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> list[dict[str, float]]:
        """Put the kept state into a run's parts and return its history; an empty one if nothing was kept.

        Raises
        ------
        SotglpError
            If the file is damaged or belongs to a run with other settings or images.
        """
        if not self.path.exists():
            return []
        try:
            tensors, record = read_tensors(self.path, "checkpoint")
        except SotglpError as error:
            raise SotglpError(f"{error}; begin anew with --force") from error
        if record.pop(CHECKSUM_KEY, None) != _checksum(tensors, record):
            raise SotglpError(f"{self.path} is damaged (its checksum is another): begin anew with --force")
        if record.get("identity") != self.identity:
            raise SotglpError(
                f"{self.path} belongs to a run with other settings, images or weights: repeat that run's command with "
                "--resume, or begin anew with --force"
            )
        try:
            history = checked_history(record["history"])
            loss_scale = float(record["loss_scale"])
            _copy_state(tensors, model, optimizer)
        except (KeyError, TypeError, ValueError) as error:
            raise SotglpError(f"{self.path} is damaged ({error}): begin anew with --force") from error
        if scaler.is_enabled():
            scaler.load_state_dict({**scaler.state_dict(), "scale": loss_scale})
        return history

    def _claim(self) -> None:
        """Hold the file that is there now, so that two runs never write over each other's state."""
        if self._claimed is not None:
            if self.path.exists() and os.path.samestat(os.fstat(self._claimed.fileno()), self.path.stat()):
                return
            self._claimed.close()
        try:
            self._claimed = claim(self.path)
        except ClaimedError as error:
            raise SotglpError(
                f"{self.path} is in use by a run that is still going: wait for its end, or give another name for the "
                "model file"
            ) from error
        except OSError as error:
            raise SotglpError(
                f"{self.path} can't be written ({os_reason(error)}): remove it, or give another name for the model file"
            ) from error


def _checksum(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _copy_state(tensors: dict[str, Tensor], model: AdaptedModel, optimizer: torch.optim.Optimizer) -> None:
    for name in model.kept_tensors():
        parameter: Tensor = getattr(model, name)
        # Copying would spread a smaller tensor over a larger one.
        if tensors[name].shape != parameter.shape:
            raise ValueError(f"its {name} has another shape than the model's")
        parameter.copy_(tensors[name])
        for key, value in tensors.items():
            part, _, owner = key.removeprefix(STATE_PREFIX).partition(".")
            if key.startswith(STATE_PREFIX) and owner == name:
                if value.ndim > 0 and value.shape != parameter.shape:
                    raise ValueError(f"its {key} has another shape than the model's")
                # AdamW counts its steps on the CPU, wherever the parameters are.
                device = "cpu" if value.ndim == 0 else parameter.device
                optimizer.state[parameter][part] = value.to(device)
