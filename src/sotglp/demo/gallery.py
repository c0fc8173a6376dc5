"""A figure of painted test pictures, their true parts, and the mass of each local prompt on patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from sotglp.demo.comparison import DemoSets, mass_of_class, parts_of_class, pixels_of
from sotglp.demo.painting import SIZE
from sotglp.demo.panels import finish, lay_out, name_row
from sotglp.methods.sot_glp import SOTGLP

OUTLINE = "#e8590c"

SUPPORT = ListedColormap(["#6b7f99"])
"""A colour that the colour map of mass does not contain."""


@torch.no_grad()
def draw_gallery(model: SOTGLP, sets: DemoSets, chosen: list[int], target: Path) -> None:
    """Write a PNG with a row per chosen test picture, for a model with local prompts."""
    backbone, n_prompts = model.backbone, model.config.n_local_prompts
    pixels = pixels_of(backbone, (sets.images.images[i] for i in chosen))
    predicted = model.predict_proba(pixels).argmax(dim=1)
    mass = mass_of_class(model, pixels, predicted)  # (B, P, N)
    mass = mass / mass.sum(dim=1, keepdim=True).clamp(min=1e-12)

    titles = ["picture", "true parts", f"support: {model.config.top_k} of {backbone.n_patches}"]
    figure, panels = lay_out([*titles, *(f"prompt {j + 1}" for j in range(n_prompts))], len(chosen))
    owned = parts_of_class(sets.pictures, sets.targets)
    brightest = float(mass.max())
    for row, i in enumerate(chosen):
        image = sets.pictures.images[i]
        true = np.isin(sets.pictures.part_map[i], owned[i].nonzero()[0])
        panels[row, 0].imshow(image)
        panels[row, 1].imshow(true, cmap="gray", vmin=0, vmax=1)
        kept = (mass[row].sum(dim=1) > 0).float().numpy()
        _overlay(panels[row, 2], image, true, kept.reshape(backbone.patch_grid), SUPPORT, 1)
        for panel, values in zip(panels[row, 3:], mass[row].T.numpy(), strict=True):
            shown = _overlay(panel, image, true, values.reshape(backbone.patch_grid), "viridis_r", brightest)
        name, answer = (model.class_names[k].replace(" and ", "\nand ") for k in (sets.targets[i], predicted[row]))
        name_row(panels[row, 0], name, answer)
    finish(figure, panels, shown, target)


def _overlay(
    panel: Axes,
    image: NDArray[np.uint8],
    true: NDArray[np.bool_],
    values: NDArray[np.float32],
    colours: str | Colormap,
    brightest: float,
) -> AxesImage:
    """A faint grey picture with outlined true parts and patches coloured by mass, transparent at zero."""
    panel.imshow(255 - (255 - image.mean(axis=2)) * 0.5, cmap="gray", vmin=0, vmax=255)
    patches: AxesImage = panel.imshow(
        np.ma.masked_less_equal(values, 1e-4),
        extent=(-0.5, SIZE - 0.5, SIZE - 0.5, -0.5),
        cmap=colours,
        vmin=0,
        vmax=brightest,
        alpha=0.8,
    )
    if true.any():  # matplotlib warns if there is no contour
        panel.contour(true, levels=[0.5], colors=OUTLINE, linewidths=0.9)
    return patches
