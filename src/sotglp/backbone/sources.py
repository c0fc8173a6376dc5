"""Architectures that a folder or a repository of the Hugging Face Hub describes, in open_clip's format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sotglp.errors import SotglpError, some_names

HUB, FOLDER = "hf-hub:", "local-dir:"
"""open_clip's prefixes of names."""

CONFIG_FILE = "open_clip_config.json"

WEIGHTS = "folder"
"""Stands for the weights in the same place, as a tag does."""

PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
"""Names of weight files, the preferred one first."""


def canonical_name(name: str) -> str:
    """Return a name as a record stores it: a folder by its whole path, built-in names with "-" in place of "/"."""
    if name.startswith(HUB):
        return name
    folder = Path(name.removeprefix(FOLDER))
    if name.startswith(FOLDER) or os.path.isfile(folder / CONFIG_FILE):
        return f"{FOLDER}{os.path.abspath(folder)}"
    return name.replace("/", "-")


def has_source(name: str) -> bool:
    """Return whether a folder or repository describes the architecture of that name."""
    return name.startswith((HUB, FOLDER))


def is_present(name: str) -> bool:
    """Return whether the description of an architecture is on this computer; asks no network."""
    return _present_folder(name) is not None


def source_folder(name: str) -> Path:
    """Return the folder that describes an architecture; a repository that isn't in the cache is downloaded.

    Raise a SotglpError if there is none, or it can't be downloaded.
    """
    folder = _present_folder(name)
    if folder is not None:
        return folder
    if name.startswith(FOLDER):
        raise SotglpError(f"the folder {name.removeprefix(FOLDER)} has no {CONFIG_FILE}: give one that open_clip saved")
    from huggingface_hub import snapshot_download

    repository = name.removeprefix(HUB)
    try:
        files = [CONFIG_FILE, "*token*", "*.model", "vocab*", "merges.txt", "open_clip_model.safetensors"]
        folder = Path(snapshot_download(repository, allow_patterns=files))
        if not any((folder / file).is_file() for file in PREFERRED):
            folder = Path(snapshot_download(repository, allow_patterns=[*files, *PREFERRED]))
    except Exception as error:  # of the client, requests and the file system
        raise SotglpError(
            f"the repository {repository} isn't in the Hugging Face cache and can't be downloaded (--debug shows why): "
            f"where there is a network, run `hf download {repository} --local-dir DIR`, and give --backbone DIR"
        ) from error
    if not (folder / CONFIG_FILE).is_file():
        raise SotglpError(
            f"the repository {repository} has no {CONFIG_FILE}: choose a repository of open_clip's models"
        )
    return folder


def source_config(name: str) -> dict[str, Any]:
    """Return the configuration of an architecture from its folder; raise a SotglpError if it can't be read."""
    path = source_folder(name) / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        if not isinstance(config["vision_cfg"], dict) or not isinstance(config["text_cfg"], dict):
            raise TypeError("towers without settings")
        return {"embed_dim": int(config["embed_dim"]), **config}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise SotglpError(
            f"{path} can't be read as a configuration of open_clip ({type(error).__name__}: {str(error)[:100]}): copy "
            "it again"
        ) from error


def source_weights(name: str) -> Path:
    """Return the weight file beside a configuration; raise a SotglpError if there is none, or several."""
    folder = source_folder(name)
    for file in PREFERRED:
        if (folder / file).is_file():
            return folder / file
    found = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    if len(found) != 1:
        what = f"several weight files ({some_names(found)})" if found else "no weight file"
        raise SotglpError(f"{folder} has {what}: name one with --pretrained PATH (pretrained=PATH)")
    return folder / found[0]


def _present_folder(name: str) -> Path | None:
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER))
        return folder if os.path.isfile(folder / CONFIG_FILE) else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repository = name.removeprefix(HUB)
    try:
        config = try_to_load_from_cache(repository, CONFIG_FILE)
        weights = [try_to_load_from_cache(repository, file) for file in PREFERRED]
    except HFValidationError as error:
        raise SotglpError(f"{repository!r} is no name of a repository: write {HUB}OWNER/NAME") from error
    has_weights = any(isinstance(path, str) for path in weights)
    return Path(config).parent if isinstance(config, str) and has_weights else None
