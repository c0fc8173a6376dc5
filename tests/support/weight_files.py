"""Weight files in the forms that people have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

State = Mapping[str, Tensor]


def _plain(state: State, path: Path) -> None:
    save_file(dict(state), path)


def _saved(wrap: Callable[[State], Any]) -> Callable[[State, Path], None]:
    return lambda state, path: torch.save(wrap(state), path)


def prefixed(state: State, prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


FORMS: dict[str, tuple[str, Callable[[State, Path], None]]] = {
    "plain": ("safetensors", _plain),
    "pytorch_model.bin": ("bin", _saved(dict)),
    "open_clip checkpoint": ("pt", _saved(lambda state: {"epoch": 1, "state_dict": prefixed(state, "module.")})),
    "Lightning": ("ckpt", _saved(lambda state: {"state_dict": prefixed(state, "model."), "global_step": 5})),
    "torch.compile": ("pt", _saved(lambda state: prefixed(state, "_orig_mod."))),
    "both": ("pt", _saved(lambda state: prefixed(state, "module._orig_mod."))),
    "wrapper": ("safetensors", lambda state, path: save_file(prefixed(state, "clip."), path)),
    "model key": ("pth", _saved(lambda state: {"model": dict(state), "epoch": 1})),
    "SigLIP loss": ("safetensors", lambda state, path: _plain({**state, "logit_bias": torch.tensor(-10.0)}, path)),
    "scale of one value": (
        "safetensors",
        lambda state, path: _plain({**state, "logit_scale": state["logit_scale"].reshape(1)}, path),
    ),
    "OpenAI's numbers": (
        "safetensors",
        lambda state, path: _plain(
            {**state, "input_resolution": torch.tensor(224), "vocab_size": torch.tensor(9)}, path
        ),
    ),
}
"""Suffix and writer of each form that is read in place."""


class Scripted(nn.Module):
    """A module with the weights of a state dict at their dotted names, for a TorchScript archive."""

    def __init__(self, state: State) -> None:
        super().__init__()
        inside: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            name, _, rest = key.partition(".")
            if rest:
                inside.setdefault(name, {})[rest] = value
            else:
                self.register_buffer(name, value)
        for name, part in inside.items():
            self.add_module(name, Scripted(part))

    def forward(self, images: Tensor) -> Tensor:
        return images


def write_torchscript(state: State, path: Path) -> None:
    extras = {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77)}
    torch.jit.script(Scripted({**state, **extras})).save(path)
