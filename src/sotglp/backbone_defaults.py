"""What a backbone decides where the user decides nothing: ``auto``, settings of training, method and OOD score.

It loads no torch, so that commands choose and report before they load a model.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Final

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.files.packaged import packaged_names, read_packaged
from sotglp.settings import (
    SHOT_SCORES,
    InferenceConfig,
    OodMethod,
    Preset,
    TrainConfig,
    check_names,
    checked,
    presets,
)

AUTO: Final = "auto"

IMAGE_ONLY: Final = "timm:"
"""Beginning of the names of backbones without a text tower."""

CLIP = "ViT-B-16"
"""Architecture of the published results, which ``auto`` chooses if OpenAI's weights were downloaded before."""

PHOTO = "photo"
"""The embedded model that ``auto`` chooses otherwise."""

HUB_REPOSITORY = "timm/vit_base_patch16_clip_224.openai"
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Where open_clip downloads OpenAI's ViT-B/16 from, and the files that it looks for."""

FOLDER = "folder"
"""Preset for a user's folder of images."""

ROWS = "presets/backbones"
"""Folder of the defaults by backbone, in the package."""

SHOTS_FOR_THRESHOLD: Final[dict[OodMethod, int]] = {"mahalanobis": 16, "mahalanobis-patches": 16, "subspace": 3}
"""Shots of each class from which on a threshold of cross-fitting holds, for OOD scores whose values depend on them."""

DECIDED = ("epochs", "batch_size", "learning_rate", "views", "augment")
"""Settings of training that a backbone may decide."""

SCORE = "ood_method"
"""Name of a backbone's OOD score in its row."""

METHOD = "method"
"""Name of a backbone's method in its row."""

PUBLISHED_METHOD = "sot-glp"
"""Method of the backbones that decide none."""


def choose_backbone(name: str, pretrained: str | os.PathLike[str] | None) -> str:
    """Resolve ``auto`` to an architecture; other names are returned as they are.

    Parameters
    ----------
    name : str
        Name of a backbone, or ``auto``: OpenAI's ViT-B/16 if its weights are in the local cache, else the embedded
        model of photos, with a SotglpWarning.
    pretrained : str, path or None
        The user's choice of weights, which must be ``auto`` too.

    Raises
    ------
    SotglpError
        If weights are given without an architecture.
    """
    if name.lower() != AUTO:
        return name
    if str(pretrained).lower() != AUTO:
        raise SotglpError(
            f"the weights {str(pretrained)!r} need the architecture that they were made for, and the backbone is "
            f"auto: name it, such as --backbone {CLIP} (backbone={CLIP!r})"
        )
    if has_clip_weights():
        return CLIP
    if os.environ.get("RANK", "0") == "0":  # of the processes that share a run, the first one speaks
        warnings.warn(
            f"OpenAI's ViT-B/16 isn't in the local cache, so the embedded model {PHOTO} is used: --backbone {CLIP} "
            f"(backbone={CLIP!r}) downloads about 600 MB once",
            SotglpWarning,
            stacklevel=2,
        )
    return PHOTO


def has_clip_weights() -> bool:
    """Whether open_clip finds OpenAI's weights of ViT-B/16 in the cache of the Hugging Face Hub; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(HUB_REPOSITORY, file), str) for file in HUB_FILES)


def backbones_with_defaults() -> list[str]:
    """Return the names of the backbones that decide settings of training, sorted."""
    return packaged_names(ROWS)


def training_defaults(backbone: str) -> dict[str, Any]:
    """Return the settings of training that come with a backbone, by name; most take the general ones."""
    return {name: value for name, value in _row(backbone).items() if name in DECIDED}


def default_method(backbone: str, preset: str = FOLDER) -> str:
    """Return the name of the method that comes with a backbone: SOT-GLP as published, or with a residual.

    The presets of the benchmarks are for the published method.
    """
    if preset in set(presets()) - {FOLDER}:
        return PUBLISHED_METHOD
    method: str = _row(backbone).get(METHOD, PUBLISHED_METHOD)
    return method


def default_ood_method(backbone: str, *, has_shots: bool) -> OodMethod:
    """Return the OOD score that comes with a backbone: its own if the model stores the shots that it needs.

    Parameters
    ----------
    backbone : str
        Name of the architecture.
    has_shots : bool
        Whether the model stores the features of its shots.
    """
    general = InferenceConfig().ood_method
    # Without sentences that patches are compared with, the general score has little to go by.
    own: OodMethod = "knn" if backbone.startswith(IMAGE_ONLY) else _row(backbone).get(SCORE, general)
    return own if has_shots or own not in SHOT_SCORES else general


def crossed_ood_method(backbone: str, *, has_shots: bool, smallest: int) -> OodMethod:
    """Return the OOD score of a backbone for a threshold that is chosen by cross-fitting the shots.

    The values of some scores depend on the number of shots, and the models of the folds have fewer: with 5 photos of
    each class the threshold of a Mahalanobis distance rejected no photo of other things. Below ``SHOTS_FOR_THRESHOLD``
    the general score takes its place.

    Parameters
    ----------
    backbone, has_shots
        See :func:`default_ood_method`.
    smallest : int
        Number of shots of the smallest class.
    """
    own = default_ood_method(backbone, has_shots=has_shots)
    return InferenceConfig().ood_method if smallest < SHOTS_FOR_THRESHOLD.get(own, 0) else own


def _row(backbone: str) -> dict[str, Any]:
    if backbone not in backbones_with_defaults():
        return {}
    row: dict[str, Any] = read_packaged(ROWS, "backbone", backbone)
    check_names(row, (*DECIDED, SCORE, METHOD))
    checked(TrainConfig, {name: value for name, value in row.items() if name in DECIDED})
    checked(InferenceConfig, {name: value for name, value in row.items() if name == SCORE})
    return row


def preset_for(backbone: str, preset: Preset) -> Preset:
    """Return a preset whose settings of training, where it names none, are those that come with a backbone."""
    named = preset.training.model_dump(exclude_unset=True)
    return preset.model_copy(update={"training": checked(TrainConfig, training_defaults(backbone) | named)})
