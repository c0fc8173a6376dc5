"""Options that several commands share, spelled the same everywhere."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sotglp.errors import SotglpError, SotglpWarning

if TYPE_CHECKING:
    from sotglp.images.image_set import ImageSet
    from sotglp.model_file.record import CalibrationRecord
    from sotglp.settings import InferenceConfig

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file that `sotglp fit` wrote.")]
Pretrained = Annotated[
    str | None,
    typer.Option(help="Tag or file with the backbone's weights, if not the one that the model file names."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU where there is one.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16, or auto: fp16 on a GPU, else fp32.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode images; 0 decodes in this one.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images encoded at once.")]
OodMethod = Annotated[
    str | None,
    typer.Option(
        help="Score of being in-distribution: mcm, l-mcm, gl-mcm, msp, max-logit, energy, margin, entropy, knn, "
        "mahalanobis or transport; if not given, the one that the model is calibrated for, or gl-mcm."
    ),
]
Temperature = Annotated[float | None, typer.Option(help="Temperature of that score; 1 if not given.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that can't be read, and list them.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output."),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the feature cache; if not given, $SOTGLP_CACHE or ~/.cache/sotglp."),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep encoded images in memory, for this run alone.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def inference_config(
    batch_size: int,
    workers: int,
    precision: str,
    ood_method: str | None,
    temperature: float | None,
    calibration: CalibrationRecord | None = None,
) -> InferenceConfig:
    """What these options say of how images are read, with the score that the model is calibrated for by default.

    Raises
    ------
    SotglpError
        If one of them can't be used.
    """
    from sotglp.settings import InferenceConfig, checked

    if ood_method is None and temperature is None and calibration:
        ood_method, temperature = calibration.ood_method, calibration.ood_temperature
    values = {
        "batch_size": batch_size,
        "workers": workers,
        "precision": precision,
        "ood_method": ood_method or "gl-mcm",
        "temperature": 1.0 if temperature is None else temperature,
        "show_progress": True,
    }
    return checked(InferenceConfig, values)


def images_of(paths: list[Path]) -> ImageSet:
    """The images that a command names, one by one or by folders.

    Raises
    ------
    SotglpError
        If there are none, or a folder has none.
    """
    from sotglp.images.image_set import ImageSet

    # Unlike path.is_dir(), os.path.isdir takes a name that no file can have, such as one too long, for no folder.
    found = [ImageSet.from_flat_folder(path).images if os.path.isdir(path) else (path,) for path in paths]
    return ImageSet.from_items([image for images in found for image in images])


def ood_sets_of(folders: list[Path]) -> dict[str, ImageSet]:
    """Images of no class, by the name of their folder; by its whole path where two names are the same.

    Raises
    ------
    SotglpError
        If there is no such folder, or no image in it.
    """
    from sotglp.images.image_set import ImageSet

    names = [folder.resolve().name for folder in folders]
    return {
        (name if names.count(name) == 1 else str(folder)): ImageSet.from_flat_folder(folder)
        for name, folder in zip(names, folders, strict=True)
    }


def cache_folder(chosen: Path | None, no_cache: bool) -> Path | None:
    """Where encoded images are kept on disk; None where they are not.

    Raises
    ------
    SotglpError
        If a folder is chosen and refused at once.
    """
    if no_cache:
        if chosen:
            raise SotglpError("--cache-dir names a folder and --no-cache says that there is none: give one of them")
        return None
    if chosen:
        return chosen
    from sotglp.features.cache_folder import default_cache_dir

    folder = default_cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        writable = False
    else:
        writable = os.access(folder, os.W_OK)
    if not writable:
        warnings.warn(f"{folder} can't be written, so encoded images stay in memory", SotglpWarning, stacklevel=2)
    return folder if writable else None
