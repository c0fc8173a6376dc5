"""Which open_clip weights are meant, where they come from, and how to tell them apart."""

from __future__ import annotations

import difflib
import hashlib
import os
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_checkpoint
from torch import Tensor, nn

from sotglp.backbone import embedded
from sotglp.backbone.safe_load import check_weight_file
from sotglp.backbone.text import VOCABULARY_SIZE
from sotglp.errors import SotglpError
from sotglp.settings import MAX_IMAGE_SIDE

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def supported_backbones() -> list[str]:
    """Names of the embedded model and of open_clip's built-in architectures that the method can serve, sorted."""
    names = (name for name in open_clip.list_models() if _is_served(open_clip.get_model_config(name)))
    return sorted([*names, embedded.NAME])


def is_known(name: str) -> bool:
    """Whether there is an architecture of that name."""
    return name == embedded.NAME or name in open_clip.list_models()


def chosen_weights(name: str, pretrained: str | os.PathLike[str] | None) -> str | None:
    """What weights are meant: a tag or a file; None for random ones.

    Parameters
    ----------
    name : str
        Architecture.
    pretrained : str, path or None
        ``"auto"`` stands for OpenAI's weights, and for the embedded model's own, which None means there too; ``"none"``
        and otherwise None stand for random ones.
    """
    said = None if pretrained is None else str(pretrained)
    if name == embedded.NAME and (said is None or said.lower() == "auto"):
        return embedded.TAG
    if said is not None and said.lower() == "auto":
        return "openai"
    return None if said is None or said.lower() == "none" else said


def _is_served(config: dict[str, Any]) -> bool:
    """Tell by the configuration alone what the tower checks would find after building the model."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    reads_patches = not (vision.get("timm_model_name") or vision.get("attentional_pool")) and (
        isinstance(vision.get("layers"), list) or vision.get("pool_type", "tok") == "tok"
    )
    reads_prompts = not (text.get("hf_model_name") or text.get("hf_tokenizer_name") or text.get("embed_cls")) and (
        text.get("pool_type", "argmax") == "argmax"
        and not text.get("no_causal_mask")
        and text.get("vocab_size", VOCABULARY_SIZE) == VOCABULARY_SIZE
    )
    return reads_patches and reads_prompts


def build_clip(
    name: str,
    pretrained: str | os.PathLike[str] | None,
    *,
    image_size: int | None,
    seed: int,
    quick_gelu: bool = False,
) -> nn.Module:
    """Build an open_clip model with pretrained, local or random weights.

    Parameters
    ----------
    name : str
        Architecture as open_clip names it; ``/`` may stand for ``-``.
    pretrained : str, path or None
        As :func:`chosen_weights` reads it.
    image_size : int or None
        Side of the square input in pixels; None keeps the architecture's own. Position embeddings are resized.
    seed : int
        Seed of random weights.
    quick_gelu : bool, default False
        QuickGELU where the name alone means GELU; a tag brings its own.

    Raises
    ------
    SotglpError
        For an unknown or unserved name, an unknown tag, weights that can't be downloaded or read, an image size that is
        not 1 to MAX_IMAGE_SIDE.
    """
    name = name.replace("/", "-")
    _check_architecture(name, image_size)
    chosen = chosen_weights(name, pretrained)
    if chosen in _tags(name):
        return _build_from_tag(name, str(chosen), image_size, seed)
    model = _build_random(name, image_size, seed, quick_gelu)
    if chosen is not None:
        _load_file(model, name, Path(chosen))
    return model


def weight_shapes(name: str, image_size: int) -> dict[str, torch.Size]:
    """Names and shapes of an architecture's weights, found without memory for them.

    Raises
    ------
    SotglpError
        For an unknown or unserved name or a wrong image size, as :func:`build_clip`.
    """
    _check_architecture(name, image_size)
    model = _build_random(name, image_size, 0, quick_gelu=False, device="meta")
    return {key: value.shape for key, value in model.state_dict().items()}


def _check_architecture(name: str, image_size: int | None) -> None:
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIDE:
        raise SotglpError(f"an image size of {image_size} pixels can't be used: choose one from 1 to {MAX_IMAGE_SIDE}")
    if not is_known(name):
        raise SotglpError(
            f"there is no backbone {name!r}{_nearest(name, supported_backbones())}; `sotglp info --backbones` lists all"
        )
    if not _is_served(_config(name)):
        raise SotglpError(
            f"the backbone {name} can't be served: the method needs an image tower with CLS pooling (or a ResNet) and "
            f"CLIP's own causal text tower{_nearest(name, supported_backbones())}"
        )


def _config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = embedded.CONFIG if name == embedded.NAME else open_clip.get_model_config(name)
    return config


def _tags(name: str) -> list[str]:
    return [embedded.TAG] if name == embedded.NAME else open_clip.list_pretrained_tags_by_model(name)


def _build_random(name: str, image_size: int | None, seed: int, quick_gelu: bool, device: str = "cpu") -> nn.Module:
    # open_clip builds a model on the device in force and moves it to the one that it is told.
    with torch.device(device):
        if name == embedded.NAME:
            return embedded.build_tiny(seed, image_size=image_size, quick_gelu=quick_gelu)
        return _create(name, image_size, seed, force_quick_gelu=quick_gelu, device=device)


def _create(name: str, image_size: int | None, seed: int, **how: Any) -> nn.Module:
    # open_clip draws random weights from the global generator; leave that as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = open_clip.create_model(name, force_image_size=image_size, **how)
    return model


def _build_from_tag(name: str, tag: str, image_size: int | None, seed: int) -> nn.Module:
    if name == embedded.NAME:
        return embedded.load_tiny(image_size=image_size)
    trained_with = open_clip.get_pretrained_cfg(name, tag)
    try:
        # The architecture's plain name means GELU; weights trained with QuickGELU are wrong with it.
        return _create(name, image_size, seed, pretrained=tag, force_quick_gelu=bool(trained_with.get("quick_gelu")))
    except (RuntimeError, OSError) as error:
        raise SotglpError(
            f"the weights {tag!r} of {name} could not be downloaded (--debug tells why): fetch them where there is a "
            "network and give the file with --pretrained PATH (pretrained=PATH), or take random ones (none)"
        ) from error


def _load_file(model: nn.Module, name: str, path: Path) -> None:
    if not path.is_file():
        tags = _tags(name)
        raise SotglpError(
            f"{str(path)!r} is neither a weight file nor a tag of {name}{_nearest(str(path), tags)}; its tags are "
            f"{', '.join(tags) or '(none)'}"
        )
    if path.suffix not in WEIGHT_SUFFIXES:
        raise SotglpError(f"the weight file {path} must end in one of {', '.join(WEIGHT_SUFFIXES)}")
    try:
        check_weight_file(path)
        load_checkpoint(model, str(path), weights_only=True)
    except SotglpError:
        raise
    except Exception as error:  # the readers and open_clip's resizing each raise their own kinds
        reason = _first_line(error)
        if isinstance(error, AssertionError) or "loading state_dict" in reason:
            raise SotglpError(
                f"the weight file {path} does not fit {name} ({reason}): name the architecture that it was made for"
            ) from error
        raise SotglpError(
            f"the weight file {path} can't be read ({reason}): it may be damaged, so fetch it again"
        ) from error
    for key, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise SotglpError(
                f"the weight file {path} has values in {key} that are not finite numbers: it is damaged, or comes of a "
                "training that failed, so take another one"
            )


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of a model's tensors, as ``sha256:`` and 64 digits.

    Equal weights give equal fingerprints on every machine; computing it takes about a second for ViT-B/16.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor))
    return f"sha256:{digest.hexdigest()}"


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _nearest(name: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.4)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
