"""Groups of commands, and settings and images from options."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import typer

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.features.cache_folder import default_cache_dir
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.manifest import ANY_COLUMNS
from sotglp.images.sources import find_images
from sotglp.model_file.record import ModelRecord
from sotglp.settings import InferenceConfig, checked


def command_group(name: str, summary: str) -> typer.Typer:
    """Return a group of commands without commands."""
    return typer.Typer(name=name, help=summary, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


def inference_config(
    record: ModelRecord,
    ood_method: str | None,
    temperature: float | None,
    *,
    batch_size: int = 32,
    workers: int = 0,
    precision: str = "auto",
) -> InferenceConfig:
    """Return the settings of inference; the score defaults to the calibrated one, or else to the backbone's."""
    if ood_method is None and temperature is None:
        ood_method, temperature = record.score
    values = {
        "batch_size": batch_size,
        "workers": workers,
        "precision": precision,
        "ood_method": ood_method or record.default_ood_method,
        "temperature": 1.0 if temperature is None else temperature,
        "show_progress": True,
    }
    return checked(InferenceConfig, values)


def images_of(paths: list[Path], columns: Columns = ANY_COLUMNS) -> ImageSet:
    """Return the images that the user names; see :func:`sotglp.images.sources.find_images`."""
    return ImageSet.from_items(find_images(paths, columns))


def ood_sets_of(folders: list[Path] | None) -> dict[str, ImageSet]:
    """Return sets of images of unknown classes by folder name, or by whole path where two names are equal."""
    folders = folders or []
    names = [os.path.basename(os.path.realpath(folder)) for folder in folders]
    return {
        (name if names.count(name) == 1 else str(folder)): ImageSet.from_flat_folder(folder)
        for name, folder in zip(names, folders, strict=True)
    }


def cache_folder(chosen: Path | None, no_cache: bool) -> Path | None:
    """Return the folder of the feature cache, or None if features are kept in memory."""
    if no_cache:
        if chosen:
            raise SotglpError("--cache-dir and --no-cache exclude each other: give one of them")
        return None
    if chosen:
        return chosen
    folder = default_cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        is_writable = False
    else:
        is_writable = os.access(folder, os.W_OK)
    if not is_writable:
        warnings.warn(f"{folder} can't be written: features stay in memory", SotglpWarning, stacklevel=2)
    return folder if is_writable else None
