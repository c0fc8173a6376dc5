"""A figure of painted test pictures, their true parts, and the mass of each local prompt on patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sotglp.demo.comparison import DemoSets, mass_of_class, parts_of_class, pixels_of
from sotglp.demo.painting import SIZE
from sotglp.demo.panels import finish, lay_out, name_row
from sotglp.explain.patch_boxes import patch_boxes
from sotglp.explain.plot import Canvas, draw_mass, draw_support
from sotglp.methods.sot_glp import SOTGLP

PARTS = "#ff9f1c"
"""Colour of the outline of true parts."""


@torch.no_grad()
def draw_gallery(model: SOTGLP, sets: DemoSets, chosen: list[int], target: Path) -> None:
    """Write a PNG with a row per chosen test picture, for a model with local prompts."""
    backbone, n_prompts = model.backbone, model.config.n_local_prompts
    pixels = pixels_of(backbone, (sets.images.images[i] for i in chosen))
    predicted = model.predict_proba(pixels).argmax(dim=1)
    mass = mass_of_class(model, pixels, predicted)  # (B, P, N)
    mass = mass / mass.sum(dim=1, keepdim=True).clamp(min=1e-12)
    mass = mass.movedim(1, 2).unflatten(2, backbone.patch_grid)  # (B, N, rows, columns)

    titles = ["picture", "true parts", f"support: {model.config.top_k} of {backbone.n_patches}"]
    figure, panels = lay_out([*titles, *(f"prompt {j + 1}" for j in range(n_prompts))], len(chosen))
    owned = parts_of_class(sets.pictures, sets.targets)
    boxes, largest = patch_boxes(backbone, SIZE, SIZE), float(mass.max())
    centres = np.arange(SIZE) + 0.5
    for row, of_prompts, i, k in zip(panels, mass.numpy(), chosen, predicted, strict=True):
        picture, true_parts, support, *prompts = row
        image = sets.pictures.images[i]
        true = np.isin(sets.pictures.part_map[i], owned[i].nonzero()[0])
        picture.imshow(image)
        true_parts.imshow(true, cmap="gray", vmin=0, vmax=1)
        canvas = Canvas(Image.fromarray(image), boxes, (0, 0, SIZE, SIZE))
        draw_support(support, canvas, of_prompts)
        for panel, of_prompt in zip(prompts, of_prompts, strict=True):
            shown = draw_mass(panel, canvas, of_prompt, largest)
        if true.any():  # matplotlib warns if there is no contour
            for panel in (support, *prompts):
                panel.contour(centres, centres, true, levels=[0.5], colors=PARTS, linewidths=0.9)
        name, answer = (model.class_names[one].replace(" and ", "\nand ") for one in (sets.targets[i], k))
        name_row(picture, name, answer)
    finish(figure, panels, shown, target)
