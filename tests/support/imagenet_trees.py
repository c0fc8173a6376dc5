"""Trees of tiny images in the layouts of ImageNet, its relatives and the OOD sets."""

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def plant(folder: Path, files: Iterable[str]) -> Path:
    """Put the same tiny JPEG at all these paths below a folder, by hard links: thousands are made in a moment."""
    first = None
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            Image.new("RGB", (16, 16), "teal").save(path, "JPEG")
            first = path
        else:
            os.link(first, path)
    return folder


def by_class(keys: Iterable[str], ending: str = "JPEG", n: int = 1) -> list[str]:
    return [f"{key}/{key}_{k}.{ending}" for key in keys for k in range(n)]
