"""Read a weight file of any layout into an open_clip model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.transformer import QuickGELU
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from sotglp.backbone.safe_load import check_weight_file
from sotglp.backbone.weight_layouts import BIAS, SCALE, to_open_clip, unwrapped
from sotglp.errors import SotglpError, SotglpWarning, first_line

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")

TRUNK_POSITIONS = "visual.trunk.pos_embed"


def load_weights(model: nn.Module, name: str, path: Path) -> None:
    """Load the weights in a file into a model of the architecture ``name``.

    Names are translated as :func:`sotglp.backbone.weight_layouts.to_open_clip` does, numbers are converted to the
    model's type, and position embeddings are resized to its image size. ``logit_bias`` is left out where the model has
    none, since it cancels in the softmax over classes.

    Raises
    ------
    SotglpError
        If the file is not of a kind that is read, is damaged, or does not fit the architecture.
    """
    state = read_weights(path)
    try:
        state = _fitted(state, model)
        _check_fit(path, name, state, model.state_dict())
        model.load_state_dict(state)
    except SotglpError:
        raise
    except (AssertionError, RuntimeError, LookupError) as error:  # of open_clip's conversions and resizing
        raise SotglpError(
            f"the weight file {path} doesn't fit {name} ({first_line(error)}): choose the architecture that it was "
            "made for"
        ) from error
    _warn_of_activation(model, name, path)
    check_finite(model, path)


def check_finite(model: nn.Module, path: Path) -> None:
    """Raise a SotglpError if weights from a file are not finite."""
    for key, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise SotglpError(
                f"the weight file {path} has values in {key} that are not finite: it is damaged or from a failed "
                "training, so use another one"
            )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors in a file, with open_clip's names if they are a CLIP's; see :func:`load_weights`."""
    if path.suffix not in WEIGHT_SUFFIXES:
        raise SotglpError(f"the weight file {path} must end in one of {', '.join(WEIGHT_SUFFIXES)}")
    try:
        check_weight_file(path)
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = unwrapped(torch.load(path, map_location="cpu", weights_only=True))
    except SotglpError:
        raise
    except Exception as error:  # torch, safetensors and zipfile each raise their own kinds
        reason = first_line(error)
        is_cut = any(
            words in reason.lower() for words in ("not fully covered", "central directory", "not a zip", "incomplete")
        )
        damage = "ends too early" if is_cut else "is probably damaged"
        raise SotglpError(
            f"the weight file {path} can't be read ({reason}): it {damage}, so download it again"
        ) from error
    return to_open_clip(state, path)


def _fitted(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Bring weights of open_clip's names into the form of a model, as open_clip's own loader does."""
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    bias = model.logit_bias if hasattr(model, BIAS) else None
    if bias is None:
        state.pop(BIAS, None)
    elif BIAS not in state:
        state[BIAS] = torch.zeros_like(bias)
    for key, own in ((SCALE, model.logit_scale), (BIAS, bias)):
        if key in state and own is not None and state[key].numel() == own.numel():
            state[key] = state[key].reshape(own.shape)
    if not hasattr(model, "text") or "text.transformer.embeddings.position_ids" not in model.state_dict():
        state.pop("text.transformer.embeddings.position_ids", None)
    if "visual.positional_embedding" in state:
        resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    positions = state.get(TRUNK_POSITIONS)
    trunk = getattr(model.visual, "trunk", None)
    own_positions = getattr(trunk, "pos_embed", None)
    if positions is not None and own_positions is not None and positions.shape != own_positions.shape:
        n_prefix = 0 if getattr(trunk, "no_embed_class", False) else cast(Any, trunk).num_prefix_tokens
        n_patches = positions.shape[1] - n_prefix if positions.ndim == 3 else 0
        if n_patches > 0 and int(n_patches**0.5) ** 2 == n_patches and positions.shape[2] == own_positions.shape[2]:
            grid = list(cast(Any, trunk).patch_embed.grid_size)
            state[TRUNK_POSITIONS] = resample_abs_pos_embed(positions, new_size=grid, num_prefix_tokens=n_prefix)
    return state


def _check_fit(path: Path, name: str, state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raise a SotglpError that names what is missing, too much, or of another shape."""
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    reshaped = [key for key in state if key in own and state[key].shape != own[key].shape]
    if not (missing or extra or reshaped):
        return
    reasons = []
    if reshaped:
        key = reshaped[0]
        reasons.append(f"{key} has shape {tuple(state[key].shape)} instead of {tuple(own[key].shape)}")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        reasons.append(f"it lacks {missing[0]}{more}")
    if extra:
        reasons.append(f"it has {len(extra)} others, such as {extra[0][:60]}")
    raise SotglpError(
        f"the weight file {path} doesn't fit {name} ({'; '.join(reasons)}): choose the architecture that it was made "
        "for"
    )


def _warn_of_activation(model: nn.Module, name: str, path: Path) -> None:
    """Compare the activation with the one in the configuration of transformers' CLIP beside the weights."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        towers = [config["text_config"], config["vision_config"]] if config["model_type"] == "clip" else []
        wanted = {tower.get("hidden_act", "quick_gelu") == "quick_gelu" for tower in towers}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return  # no such configuration
    has_quick = any(isinstance(module, QuickGELU) for module in model.modules())
    if wanted == {not has_quick}:
        kind, other = ("GELU", "QuickGELU") if has_quick else ("QuickGELU", "GELU")
        warnings.warn(
            f"{path.parent / 'config.json'} asks for {kind} and {name} has {other}, which changes all features: choose "
            "the architecture with that activation (names that end in -quickgelu have QuickGELU)",
            SotglpWarning,
            stacklevel=2,
        )
