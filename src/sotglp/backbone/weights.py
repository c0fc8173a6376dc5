"""Load the weights of a backbone by tag, file or seed, and compute their fingerprint."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from torch import nn

from sotglp.backbone.architectures import (
    architecture_config,
    check_architecture,
    chosen_weights,
    nearest,
    published_tags,
)
from sotglp.backbone.embedded import EMBEDDED
from sotglp.backbone.image_only import build_image_only, load_image_only
from sotglp.backbone.network import no_waiting_for_the_hub
from sotglp.backbone.sources import (
    FOLDER,
    WEIGHTS,
    canonical_name,
    has_source,
    source_folder,
    source_weights,
)
from sotglp.backbone.text import LoadTokenizer
from sotglp.backbone.tokenizers import load_hugging_face
from sotglp.backbone.weight_files import load_weights
from sotglp.backbone_defaults import IMAGE_ONLY
from sotglp.errors import SotglpError, SotglpWarning, short_repr

PREPROCESS = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip records of the preprocessing of published weights, besides the size."""

HUGGING_FACE = "'sotglp[huggingface]'"


def build_clip(
    name: str,
    pretrained: str | os.PathLike[str] | None,
    *,
    image_size: int | None,
    seed: int,
    quick_gelu: bool = False,
) -> nn.Module:
    """Build an open_clip model with pretrained, local or random weights, for a square input of ``image_size`` pixels.

    Arguments and errors are those of :meth:`sotglp.Backbone.load`. Position embeddings are resized to ``image_size``; a
    tag determines its own activation, whatever ``quick_gelu``.
    """
    name = canonical_name(name)
    check_architecture(name, image_size)
    if not -(2**63) <= seed < 2**64:  # of torch.manual_seed
        raise SotglpError(f"the seed {short_repr(seed)} can't be used: choose a number below 2**64")
    chosen = chosen_weights(name, pretrained)
    if has_source(name) and chosen == WEIGHTS:
        chosen = str(source_weights(name))
    elif chosen is not None and chosen in published_tags(name):
        return _build_from_tag(name, chosen, image_size, seed)
    if chosen is not None:
        _check_file(name, chosen)
        if name.startswith(IMAGE_ONLY):
            return load_image_only(name, Path(chosen), image_size=image_size)
    model = _build_random(name, image_size, seed, quick_gelu)
    if chosen is not None:
        load_weights(model, name, Path(chosen))
        _set_trained_preprocess(model, name)
    return model


def vocabulary_size(clip: nn.Module) -> int:
    """Return the number of token embeddings of a model's text tower."""
    return int(cast(Any, getattr(clip, "text", clip)).vocab_size)


def tokenizer_loader(name: str, chosen: str | None, clip: nn.Module) -> LoadTokenizer | None:
    """Return what loads the tokenizer of a known architecture, None for CLIP's.

    ``chosen`` are its weights: a tokenizer in the folder of a weight file is preferred.
    """
    if name.startswith(IMAGE_ONLY):
        return None
    text = architecture_config(name)["text_cfg"]
    if not (text.get("hf_tokenizer_name") or text.get("hf_model_name")):
        return None
    folder = Path(chosen).parent if chosen is not None and os.path.isfile(chosen) else None
    if folder is None and has_source(name):
        folder = source_folder(name)
    return partial(load_hugging_face, name, text, vocabulary_size(clip), folder)


def weight_shapes(name: str, image_size: int) -> dict[str, torch.Size]:
    """Return names and shapes of an architecture's weights without allocating them; raises as :func:`build_clip`."""
    check_architecture(name, image_size)
    model = _build_random(name, image_size, 0, quick_gelu=False, device="meta")
    return {key: value.shape for key, value in model.state_dict().items()}


def _build_random(name: str, image_size: int | None, seed: int, quick_gelu: bool, device: str = "cpu") -> nn.Module:
    # open_clip builds a model on the current device, and only then moves it to its argument's.
    with torch.device(device):
        if name.startswith(IMAGE_ONLY):
            return build_image_only(name, image_size=image_size, seed=seed)
        if name in EMBEDDED:
            return EMBEDDED[name].build(seed, image_size=image_size, quick_gelu=quick_gelu)
        return _create(name, image_size, seed, force_quick_gelu=quick_gelu, device=device)


def _create(name: str, image_size: int | None, seed: int, **how: Any) -> nn.Module:
    encoder = architecture_config(name)["text_cfg"].get("hf_model_name")
    built = f"{FOLDER}{source_folder(name)}" if has_source(name) else name
    if encoder and find_spec("transformers") is None:
        raise SotglpError(f"the text tower of {name} needs transformers: install it with pip install {HUGGING_FACE}")
    # open_clip draws random weights from the global generator, whose state is restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Random weights are what was asked for, so open_clip's warning of them would mislead.
        root = logging.getLogger()
        root.addFilter(_is_worth_saying)
        try:
            if encoder:
                _check_runs_no_code(name, encoder)
            model: nn.Module = open_clip.create_model(
                built, force_image_size=image_size, pretrained_text=False, load_weights="pretrained" in how, **how
            )
        except OSError as error:
            if not encoder or "pretrained" in how:
                raise
            raise SotglpError(
                f"the sizes of the text tower of {name} aren't in the Hugging Face cache and can't be downloaded: "
                f"where there is a network, run `hf download {encoder} config.json`, and copy the cache"
            ) from error
        finally:
            root.removeFilter(_is_worth_saying)
    return model


def _check_runs_no_code(name: str, encoder: str) -> None:
    """Raise a SotglpError if a text encoder of transformers brings code, which open_clip would offer to run."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(encoder, trust_remote_code=False)
    except ValueError as error:
        raise SotglpError(
            f"the text encoder {encoder} of {name} has an architecture that transformers doesn't know, or code of its "
            "own, which isn't run: choose another backbone"
        ) from error


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether a note of open_clip isn't one of random weights or of a failed download, which an error reports."""
    return not any(
        text in record.getMessage() for text in ("No pretrained weights loaded", "Failed to download weights")
    )


def _build_from_tag(name: str, tag: str, image_size: int | None, seed: int) -> nn.Module:
    if name in EMBEDDED:
        return EMBEDDED[name].load(image_size=image_size)
    try:
        with no_waiting_for_the_hub():
            if name.startswith(IMAGE_ONLY):
                return build_image_only(name, image_size=image_size, seed=seed, tag=tag)
            # The architecture's plain name means GELU, with which weights trained with QuickGELU are wrong.
            is_quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu"))
            return _create(name, image_size, seed, pretrained=tag, force_quick_gelu=is_quick)
    except (RuntimeError, OSError) as error:
        raise SotglpError(
            f"the weights {tag!r} of {name} could not be downloaded (--debug shows why): download them on another "
            "computer and give the file with --pretrained PATH (pretrained=PATH), or use --backbone photo "
            "(backbone='photo'), which ships with the package"
        ) from error


def _check_file(name: str, chosen: str) -> None:
    if not os.path.isfile(chosen):
        tags = published_tags(name)
        raise SotglpError(
            f"{chosen!r} is neither a weight file nor a tag of {name}{nearest(chosen, tags)}; its tags are "
            f"{', '.join(tags) or '(none)'}"
        )


def _set_trained_preprocess(model: nn.Module, name: str) -> None:
    """Normalise and resize images as the architecture's published weights ask for, since a weight file doesn't say."""
    if name in EMBEDDED or has_source(name):
        return
    published = [open_clip.get_pretrained_cfg(name, tag) for tag in published_tags(name)]
    kinds = {tuple((key, config[key]) for key in PREPROCESS if key in config) for config in published}
    if len(kinds) > 1:
        warnings.warn(
            f"published weights of {name} normalise or resize images in {len(kinds)} ways and a weight file doesn't "
            "say which: CLIP's own is used, so give the tag instead of the file if yours differ",
            SotglpWarning,
            stacklevel=2,
        )
        return
    recorded = cast(Any, model.visual).preprocess_cfg
    for kind in kinds:
        set_model_preprocess_cfg(model, {**recorded, **dict(kind)})


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of names, types, shapes and values of a model's tensors, the same on every machine."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"
