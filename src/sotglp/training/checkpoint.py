"""The state of a fit after an epoch, from which an interrupted run resumes to the same result."""

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
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.settings import TrainConfig
from sotglp.training.history import checked_history

STATE_PREFIX = "optimizer."
CHECKSUM_KEY = "sha256"


def run_identity(model: AdaptedModel, images: ImageSet, config: TrainConfig) -> str:
    """Digest all that a run's result depends on, so that no run resumes from the checkpoint of another."""
    parts = {
        "model": model.config.model_dump(),
        "training": config.model_dump(exclude={"workers"}),  # which changes only the speed
        "classes": model.class_names,
        "backbone": [model.backbone.fingerprint, model.backbone.patch_attention],
        # Not their names, under which there may be other pictures by now.
        "images": [content_digest(image) for image in images.images],
        "labels": images.labels,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass
class Checkpoint:
    """The checkpoint file of one run, which :func:`run_identity` identifies."""

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
        """Store the state after ``len(history)`` epochs, in place of the previous one.

        Raise a SotglpError if another run uses the file or it can't be written.
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
        """Restore the stored state and return its history; an empty one if there is no file.

        Raise a SotglpError if the file is damaged or belongs to a run with other settings or images.
        """
        if not os.path.exists(self.path):
            return []
        try:
            tensors, record = read_tensors(self.path, "checkpoint")
        except SotglpError as error:
            raise SotglpError(f"{error}; start again with --force") from error
        if record.pop(CHECKSUM_KEY, None) != _checksum(tensors, record):
            raise SotglpError(f"{self.path} is damaged (its checksum differs): start again with --force")
        if record.get("identity") != self.identity:
            raise SotglpError(
                f"{self.path} belongs to a run with other settings, images or weights: repeat the command of that run "
                "with --resume, or start again with --force"
            )
        try:
            history = checked_history(record["history"])
            loss_scale = float(record["loss_scale"])
            _copy_state(tensors, model, optimizer)
        except (KeyError, TypeError, ValueError) as error:
            raise SotglpError(f"{self.path} is damaged ({error}): start again with --force") from error
        if scaler.is_enabled():
            scaler.load_state_dict({**scaler.state_dict(), "scale": loss_scale})
        return history

    def _claim(self) -> None:
        """Lock the current file, so that two runs never overwrite each other's state."""
        if self._claimed is not None:
            if os.path.exists(self.path) and os.path.samestat(os.fstat(self._claimed.fileno()), self.path.stat()):
                return
            self._claimed.close()
        try:
            self._claimed = claim(self.path)
        except ClaimedError as error:
            raise SotglpError(
                f"{self.path} is in use by another run: wait until it ends, or choose another name for the model file"
            ) from error
        except OSError as error:
            raise SotglpError(
                f"{self.path} can't be written ({os_reason(error)}): remove it, or choose another name for the model "
                "file"
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
        # copy_ would broadcast a smaller tensor.
        if tensors[name].shape != parameter.shape:
            raise ValueError(f"its {name} has another shape than the model's")
        parameter.copy_(tensors[name])
        for key, value in tensors.items():
            part, _, owner = key.removeprefix(STATE_PREFIX).partition(".")
            if key.startswith(STATE_PREFIX) and owner == name:
                if value.ndim > 0 and value.shape != parameter.shape:
                    raise ValueError(f"its {key} has another shape than the model's")
                # AdamW counts steps on the CPU.
                device = "cpu" if value.ndim == 0 else parameter.device
                optimizer.state[parameter][part] = value.to(device)
