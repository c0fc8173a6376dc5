"""Translate the names of weights as other programs save them into those of open_clip."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sotglp.errors import SotglpError, SotglpWarning, some_names

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "weights")
"""Keys under which trainers save a state dict beside other things."""

SCALE, BIAS = "logit_scale", "logit_bias"

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Numbers beside the weights in OpenAI's archives."""

_SHARED = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TRUNK = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj"}


def unwrapped(content: Any) -> Any:
    """Return the state dict inside a trainer's checkpoint."""
    while isinstance(content, Mapping):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    return content


def to_open_clip(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename the weights of a CLIP as open_clip names them.

    Prefixes of trainers and wrappers (``module.``, ``model.``, ``clip.``, ``_orig_mod.`` and others) are removed, and
    the layouts of transformers for CLIP and SigLIP are translated. Tensors outside the model are left out, with a
    SotglpWarning.

    Raises
    ------
    SotglpError
        If there are several models in the file ``path``.
    """
    state = _without_prefix(state, path)
    state = {key: value for key, value in state.items() if key not in OPENAI_EXTRAS}
    if not any(key.startswith("vision_model.") for key in state):
        return state
    state = {key: value for key, value in state.items() if not key.endswith("position_ids")}
    return _from_siglip(state) if "vision_model.head.probe" in state else _from_clip(state)


def _without_prefix(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the weights under the prefix of the logit scale, which every CLIP has."""
    prefixes = sorted({key.removesuffix(SCALE) for key in state if f".{key}".endswith(f".{SCALE}")})
    if not prefixes:
        return dict(state)
    if len(prefixes) > 1:
        named = some_names([prefix.rstrip(".") or "(none)" for prefix in prefixes])
        raise SotglpError(f"the weight file {path} holds several models ({named}): save one of them alone")
    (prefix,) = prefixes
    left_out = [key for key in state if not key.startswith(prefix)]
    if left_out:
        warnings.warn(
            f"{len(left_out)} tensors of {path} are outside its model {prefix.rstrip('.')} and left out: "
            f"{some_names(left_out)}",
            SotglpWarning,
            stacklevel=2,
        )
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _from_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        **_pairs("visual.ln_pre", "vision_model.pre_layrnorm"),
        **_pairs("visual.ln_post", "vision_model.post_layernorm"),
        **_pairs("ln_final", "text_model.final_layer_norm"),
        SCALE: SCALE,
        BIAS: BIAS,
    }
    found = _renamed(state, names)
    for name, key in (("visual.proj", "visual_projection.weight"), ("text_projection", "text_projection.weight")):
        if key in state:
            found[name] = state[key].T
    found |= _layers(state, "vision_model.", "visual.transformer.resblocks.", _SHARED, "attn.in_proj_")
    found |= _layers(state, "text_model.", "transformer.resblocks.", _SHARED, "attn.in_proj_")
    return found


def _from_siglip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    trunk, head = "visual.trunk.", "vision_model.head."
    names = {
        **_pairs(f"{trunk}patch_embed.proj", "vision_model.embeddings.patch_embedding"),
        **_pairs(f"{trunk}norm", "vision_model.post_layernorm"),
        f"{trunk}attn_pool.latent": f"{head}probe",
        **_pairs(f"{trunk}attn_pool.proj", f"{head}attention.out_proj"),
        **_pairs(f"{trunk}attn_pool.norm", f"{head}layernorm"),
        **_pairs(f"{trunk}attn_pool.mlp.fc1", f"{head}mlp.fc1"),
        **_pairs(f"{trunk}attn_pool.mlp.fc2", f"{head}mlp.fc2"),
        "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "text.positional_embedding": "text_model.embeddings.position_embedding.weight",
        **_pairs("text.ln_final", "text_model.final_layer_norm"),
        **_pairs("text.text_projection", "text_model.head"),
        SCALE: SCALE,
        BIAS: BIAS,
    }
    found = _renamed(state, names)
    positions = state.get("vision_model.embeddings.position_embedding.weight")
    if positions is not None:
        found[f"{trunk}pos_embed"] = positions[None]
    for kind in ("weight", "bias"):
        joined = state.get(f"{head}attention.in_proj_{kind}")
        if joined is not None:
            width = len(joined) // 3
            found[f"{trunk}attn_pool.q.{kind}"], found[f"{trunk}attn_pool.kv.{kind}"] = joined[:width], joined[width:]
    found |= _layers(state, "vision_model.", f"{trunk}blocks.", _TRUNK, "attn.qkv.")
    found |= _layers(state, "text_model.", "text.transformer.resblocks.", _SHARED, "attn.in_proj_")
    return found


def _pairs(name: str, key: str) -> dict[str, str]:
    return {f"{name}.{kind}": f"{key}.{kind}" for kind in ("weight", "bias")}


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {name: state[key] for name, key in names.items() if key in state}


def _layers(
    state: Mapping[str, Tensor], tower: str, target: str, names: Mapping[str, str], joined: str
) -> dict[str, Tensor]:
    """Rename the layers of a tower; query, key and value weights become one, ``joined`` + weight or bias."""
    pattern = re.compile(re.escape(tower) + r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
    found: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in state.items():
        match = pattern.fullmatch(key)
        if match is None:
            continue
        index, name, kind = match.groups()
        if name.removeprefix("self_attn.") in ("q_proj", "k_proj", "v_proj"):
            parts.setdefault((index, kind), {})[name.removeprefix("self_attn.")] = value
        else:
            found[f"{target}{index}.{names.get(name, name)}.{kind}"] = value
    for (index, kind), three in parts.items():
        found[f"{target}{index}.{joined}{kind}"] = torch.cat(_in_order(three))
    return found


def _in_order(three: Mapping[str, Tensor]) -> list[Tensor]:
    return [three[name] for name in ("q_proj", "k_proj", "v_proj") if name in three]
