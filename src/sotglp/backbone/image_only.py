"""Image towers of timm alone, without a text tower, by the name ``timm:NAME``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg
from timm.models import get_pretrained_cfg, is_model_in_modules
from torch import nn

from sotglp.backbone import timm_vit
from sotglp.backbone.weight_files import check_finite, read_weights
from sotglp.backbone_defaults import IMAGE_ONLY
from sotglp.errors import SotglpError

SCALE = 100.0
"""Factor on cosines, the largest that CLIP learns; methods without text divide by it and multiply again."""

RESIZE_MODES = {"border": "longest", "squash": "squash"}
"""open_clip's names of timm's ways to crop; the shortest side is resized for every other."""


class ImageOnly(nn.Module):
    """Stands in for an open_clip model that has no text tower."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.logit_scale: torch.Tensor
        self.register_buffer("logit_scale", torch.tensor(SCALE).log())


class _TimmTower(TimmModel):  # type: ignore[misc]
    """A trunk of timm with its own pool and no head, as open_clip wraps trunks that have both."""

    def __init__(self, trunk: Any, side: int) -> None:
        nn.Module.__init__(self)
        self.image_size = side, side
        self.trunk = trunk
        self.head = nn.Sequential()
        about = trunk.pretrained_cfg
        self.preprocess_cfg = PreprocessCfg(
            size=self.image_size,
            mean=tuple(about["mean"]),
            std=tuple(about["std"]),
            interpolation="bilinear" if about["interpolation"] == "bilinear" else "bicubic",
            resize_mode=RESIZE_MODES.get(about["crop_mode"], "shortest"),
        ).__dict__


def is_timm_model(name: str) -> bool:
    """Return whether timm has the architecture ``timm:NAME``; a name with a tag is none."""
    return "." not in name and bool(timm.is_model(_architecture(name)))


def timm_tags(name: str) -> list[str]:
    """Return the tags of an architecture's published weights, timm's default first."""
    start = f"{_architecture(name)}."
    tags = [one.removeprefix(start) for one in timm.list_models(f"{start}*", pretrained=True)]
    default = getattr(get_pretrained_cfg(_architecture(name)), "tag", None)
    return sorted(tags, key=lambda tag: (tag != default, tag))


def build_image_only(name: str, *, image_size: int | None, seed: int, tag: str | None = None) -> ImageOnly:
    """Build an architecture with published weights, or with random ones that depend on the seed alone."""
    return _build(name, image_size, seed, tag)


def load_image_only(name: str, path: Path, *, image_size: int | None) -> ImageOnly:
    """Build an architecture with the weights in a file of timm, or of the authors where timm converts it.

    A classifier in it is left out. Raise a SotglpError if the file can't be read or doesn't fit.
    """
    state = dict(read_weights(path))
    classifier = getattr(get_pretrained_cfg(_architecture(name)), "classifier", None) or ()
    for layer in (classifier,) if isinstance(classifier, str) else classifier:
        state.pop(f"{layer}.weight", None)
        state.pop(f"{layer}.bias", None)
    try:
        # Of equal numbers of classes, timm requires that all names fit.
        model = _build(name, image_size, 0, None, {"state_dict": state, "num_classes": 0})
    except (RuntimeError, LookupError, AssertionError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SotglpError(
            f"the weight file {path} doesn't fit {name} ({reason}): choose the architecture that it was made for"
        ) from error
    check_finite(model, path)
    return model


def _architecture(name: str) -> str:
    return name.removeprefix(IMAGE_ONLY)


def _build(
    name: str, image_size: int | None, seed: int, tag: str | None, from_file: dict[str, Any] | None = None
) -> ImageOnly:
    architecture = _architecture(name)
    about = get_pretrained_cfg(architecture)
    side = image_size or int(about.input_size[1] if about else 224)
    # Only transformers have sizes that depend on the image's.
    is_transformer = is_model_in_modules(architecture, timm_vit.FAMILIES)
    how: dict[str, Any] = {"img_size": (side, side)} if is_transformer else {}
    if from_file is not None:
        how["pretrained_cfg_overlay"] = from_file
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = timm.create_model(
            architecture if tag is None else f"{architecture}.{tag}",
            pretrained=not (tag is None and from_file is None),
            num_classes=0,
            **how,
        )
    trunk.pretrained_cfg.pop("state_dict", None)  # which is a second copy of the weights
    return ImageOnly(_TimmTower(trunk, side)).eval()
