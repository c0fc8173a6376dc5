"""Pictures of the demonstration's painted world, one part of which makes the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sotglp.demo.painting import paint_textures
from sotglp.demo.world import COLOURS, KNOWN_FILLS, SHAPES, paint

CLASSES = ("red star", "blue ring", "yellow heart", "green square", "purple moon")
NEW_CLASS = "orange cross"
_STRANGERS = ("white circle", "pink triangle", "white triangle", "pink circle")


def _part(name: str, rng: np.random.Generator) -> tuple[int, int, int]:
    colour, shape = name.split()
    return SHAPES.index(shape), COLOURS.index(colour), int(rng.integers(KNOWN_FILLS))


def paint_pictures(name: str, n: int, seed: int) -> list[Image.Image]:
    """Pictures of a class: its part and two that make no class."""
    rng = np.random.default_rng([seed, *name.encode()])
    parts = [[_part(one, rng) for one in (name, *rng.choice(_STRANGERS, 2, replace=False))] for _ in range(n)]
    return [Image.fromarray(pixels) for pixels in paint(np.array(parts), rng).images]


def paint_unknown(n: int, seed: int) -> list[Image.Image]:
    """Pictures of no class: textures without any part."""
    return [Image.fromarray(pixels) for pixels in paint_textures(n, np.random.default_rng(seed))]


def beside(*pictures: Image.Image) -> Image.Image:
    """Pictures side by side in one."""
    return Image.fromarray(np.concatenate([np.asarray(one) for one in pictures], axis=1))


def save_all(pictures: list[Image.Image], folder: Path, name: str) -> list[Path]:
    """Write pictures as ``name_1.png`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name.replace(' ', '_')}_{index}.png" for index in range(1, len(pictures) + 1)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    return paths
