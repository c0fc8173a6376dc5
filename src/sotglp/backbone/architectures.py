"""Names of architectures and of their published weights: open_clip's, those of timm, and of folders."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

import open_clip
import timm

from sotglp.backbone.embedded import EMBEDDED, TAG
from sotglp.backbone.image_only import is_timm_model, timm_tags
from sotglp.backbone.readers import READERS
from sotglp.backbone.sources import WEIGHTS, has_source, is_present, source_config
from sotglp.backbone.text_readers import TEXT_READERS
from sotglp.backbone_defaults import IMAGE_ONLY
from sotglp.errors import SotglpError
from sotglp.settings import MAX_IMAGE_SIDE


def supported_backbones() -> list[str]:
    """Return the names of the embedded models and of open_clip's supported architectures, sorted."""
    return sorted(name for name in [*EMBEDDED, *open_clip.list_models()] if _is_supported(architecture_config(name)))


def is_known(name: str) -> bool:
    """Return whether there is an architecture of that name."""
    if name.startswith(IMAGE_ONLY):
        return is_timm_model(name)
    return name in EMBEDDED or name in open_clip.list_models() or (has_source(name) and is_present(name))


def architecture_config(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of a known architecture."""
    if has_source(name):
        return source_config(name)
    config: dict[str, Any] = EMBEDDED[name].config if name in EMBEDDED else open_clip.get_model_config(name)
    return config


def chosen_weights(name: str, pretrained: str | os.PathLike[str] | None) -> str | None:
    """Resolve ``pretrained`` to a tag or a file, or None for random weights; see :meth:`sotglp.Backbone.load`."""
    default = "auto" if name in EMBEDDED or has_source(name) else "none"
    choice = default if pretrained is None else str(pretrained)
    if choice.lower() == "auto" and name.startswith(IMAGE_ONLY):
        _check_timm_name(name)
        if tags := timm_tags(name):
            return tags[0]
        raise SotglpError(f"timm has no weights of {name}: give a file with --pretrained PATH (pretrained=), or none")
    if choice.lower() == "auto":
        return TAG if name in EMBEDDED else WEIGHTS if has_source(name) else "openai"
    return None if choice.lower() == "none" else choice


def published_tags(name: str) -> list[str]:
    """Return the tags of an architecture's weights."""
    if has_source(name):
        return [WEIGHTS]
    if name.startswith(IMAGE_ONLY):
        return timm_tags(name)
    return [TAG] if name in EMBEDDED else open_clip.list_pretrained_tags_by_model(name)


def check_architecture(name: str, image_size: int | None) -> None:
    """Raise a SotglpError if there is no architecture of that name, or it isn't supported at that size."""
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIDE:
        raise SotglpError(f"an image size of {image_size} pixels can't be used: choose one from 1 to {MAX_IMAGE_SIDE}")
    if name.startswith(IMAGE_ONLY):
        _check_timm_name(name)
        return  # its tower is examined when it is built
    if not (has_source(name) or is_known(name)):
        raise SotglpError(
            f"there is no backbone {name!r}{nearest(name, supported_backbones())}; `sotglp info --backbones` lists all"
        )
    if not _is_supported(architecture_config(name)):
        raise SotglpError(
            f"the backbone {name} isn't supported{nearest(name, supported_backbones())}: choose one that `sotglp info "
            "--backbones` lists, whose towers have patch tokens and take learned prompts"
        )


def _check_timm_name(name: str) -> None:
    if not is_timm_model(name):
        near = nearest(name, [IMAGE_ONLY + one for one in timm.list_models()])
        raise SotglpError(
            f"timm has no architecture {name!r}{near}: give a name as timm.list_models() returns it, without a tag, "
            "and the tag with --pretrained (pretrained=)"
        )


def nearest(name: str, choices: list[str]) -> str:
    """Return a remark on names that are like a wrong one, empty if there are none."""
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.4)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _is_supported(config: Mapping[str, Any]) -> bool:
    """Whether both towers of a configuration are supported, without building them."""
    reads_images = any(reader.is_configured(config["vision_cfg"]) for reader in READERS)
    return reads_images and any(reader.is_configured(config["text_cfg"]) for reader in TEXT_READERS)
