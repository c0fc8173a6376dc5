"""The state of a fit after an epoch, from which a killed run goes on to the same result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sotglp.adapted import AdaptedModel
from sotglp.config import TrainConfig
from sotglp.dataset import ImageSet
from sotglp.errors import SotglpError
from sotglp.modelfile import learned_tensors, read_tensors, write_tensors

STATE_PREFIX = "optimizer."

# Settings that change how fast a run is, not what it computes.
_FREE_SETTINGS = {"workers"}


def checkpoint_path(model_path: Path) -> Path:
    """Where the checkpoint of a run that writes ``model_path`` lies: beside it."""
    return model_path.with_name(model_path.name + ".checkpoint")


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

    def write(
        self,
        model: AdaptedModel,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        history: list[dict[str, float]],
    ) -> None:
        """Keep the state after ``len(history)`` epochs, in place of the one before."""
        tensors = learned_tensors(model)
        for name in list(tensors):
            for part, value in optimizer.state.get(getattr(model, name), {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{STATE_PREFIX}{part}.{name}"] = value
        record = {"identity": self.identity, "history": history, "loss_scale": scaler.get_scale()}
        write_tensors(self.path, tensors, record, force=True)

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
        tensors, record = read_tensors(self.path, "checkpoint")
        if record.get("identity") != self.identity:
            raise SotglpError(
                f"{self.path} belongs to a run with other settings, images or weights: repeat that run's command with "
                "--resume, or begin anew with --force"
            )
        _copy_state(tensors, model, optimizer)
        if scaler.is_enabled():
            scaler.load_state_dict({**scaler.state_dict(), "scale": record["loss_scale"]})
        history: list[dict[str, float]] = record["history"]
        return history


@torch.no_grad()
def _copy_state(tensors: dict[str, Tensor], model: AdaptedModel, optimizer: torch.optim.Optimizer) -> None:
    for name in learned_tensors(model):
        parameter: Tensor = getattr(model, name)
        parameter.copy_(tensors[name])
        for key, value in tensors.items():
            part, _, owner = key.removeprefix(STATE_PREFIX).partition(".")
            if key.startswith(STATE_PREFIX) and owner == name:
                # AdamW counts its steps on the CPU, wherever the parameters are.
                device = "cpu" if value.ndim == 0 else parameter.device
                optimizer.state[parameter][part] = value.to(device)
