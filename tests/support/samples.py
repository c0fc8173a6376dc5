"""Backbones that the tests share: the published implementation's two reference cases, and a tiny random one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from sotglp import SOTGLP, Backbone
from sotglp.images.image_set import ImageSet

DATA = Path(__file__).parents[1] / "data"
REFERENCE_CASES = ("vit_small_proj", "vit_small_noproj")


@dataclass
class Reference:
    """One reference case: sizes, numbers, and the backbone and model that they were computed with."""

    sizes: dict[str, Any]
    numbers: dict[str, torch.Tensor]
    backbone: Backbone
    model: SOTGLP


def reference_clip(case: str) -> open_clip.CLIP:
    sizes = json.loads((DATA / f"{case}.json").read_text())
    clip = open_clip.CLIP(
        embed_dim=sizes["embed_dim"],
        vision_cfg={
            "image_size": sizes["image_size"],
            "patch_size": sizes["patch_size"],
            "width": sizes["vision_width"],
            "layers": sizes["vision_layers"],
            "head_width": sizes["head_width"],
        },
        text_cfg={
            "width": sizes["text_width"],
            "heads": sizes["text_heads"],
            "layers": sizes["text_layers"],
            "context_length": sizes["context_length"],
        },
        quick_gelu=sizes["quick_gelu"],
    )
    with np.load(DATA / f"{case}.weights.npz") as weights:
        clip.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
    return clip


def load_reference(case: str) -> Reference:
    sizes = json.loads((DATA / f"{case}.json").read_text())
    with np.load(DATA / f"{case}.npz") as arrays:
        numbers = {name: torch.from_numpy(arrays[name]) for name in arrays}
    backbone = Backbone.from_open_clip(reference_clip(case))
    settings = ("n_global_prompts", "n_local_prompts", "top_k", "epsilon", "template", "learn_projection")
    model = SOTGLP(backbone, sizes["class_names"], **{name: sizes[name] for name in settings})
    with torch.no_grad():
        model.global_prompts.copy_(numbers["global_prompt"])
        model.local_prompts.copy_(numbers["local_prompts"])
        if model.local_projection is not None:
            model.local_projection.copy_(numbers["local_proj"])
    return Reference(sizes, numbers, backbone, model)


def tiny_clip(seed: int = 0) -> open_clip.CLIP:
    """A random CLIP of 16 patches that encodes hundreds of images a second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(
            embed_dim=32,
            vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
            text_cfg={"width": 32, "heads": 2, "layers": 2},
        )


def preprocessed(backbone: Backbone, images: ImageSet) -> torch.Tensor:
    """Pixels (B, 3, H, W) of all images, as the backbone is shown them."""
    opened = (Image.open(image) if isinstance(image, str | Path) else image for image in images.images)
    return torch.stack([backbone.preprocess(image.convert("RGB")) for image in opened])


def coloured_image(rng: np.random.Generator, colour: tuple[int, int, int], size: int = 40) -> Image.Image:
    """Noise around one colour: classes that even random features tell apart."""
    pixels = rng.normal(colour, 40, size=(size, size, 3)).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


COLOURS = {"red_brick": (200, 60, 50), "green leaf": (60, 180, 70), "blue sea": (50, 80, 200)}


def make_class_folders(root: Path, per_class: int = 6, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            coloured_image(rng, colour).save(root / name / f"{index}.png")
    return root


def drawn_clusters(
    n_classes: int, n_shots: int, *, width: int, seed: int, spread: float = 0.3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features (n, width) around a random centre of each class, float64, and class indices (n,)."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_classes, width, generator=generator, dtype=torch.float64)
    classes = torch.arange(n_classes).repeat_interleave(n_shots)
    noise = spread * torch.randn(len(classes), width, generator=generator, dtype=torch.float64)
    features = centres[classes] + noise
    return features / features.norm(dim=1, keepdim=True), classes
