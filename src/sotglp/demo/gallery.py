"""A picture for people: test pictures, the true parts in them, and what each local prompt of the class took."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sotglp.demo.comparison import DemoSets, parts_of_class
from sotglp.demo.painting import SIZE
from sotglp.model import SOTGLP
from sotglp.overlap import patch_mass

INK = "#1a1a1a"


@torch.no_grad()
def draw_gallery(model: SOTGLP, sets: DemoSets, chosen: list[int], target: Path) -> None:
    """Draw one row for each chosen test picture.

    Parameters
    ----------
    model : SOTGLP
        With local prompts.
    sets : DemoSets
        Test pictures.
    chosen : list of int
        Positions of the pictures to show.
    target : Path
        PNG to write.
    """
    backbone, n_prompts = model.backbone, model.config.n_local_prompts
    pixels = torch.stack([backbone.preprocess(sets.images.images[i]) for i in chosen])  # type: ignore[arg-type]
    predicted = model.predict_proba(pixels).argmax(dim=1)
    plan, support = model.transport(pixels)
    rows = torch.arange(len(chosen))
    mass = patch_mass(plan[rows, predicted, None], support[rows, predicted, None], backbone.n_patches)[:, 0]  # (B, P, N)
    mass = mass / mass.sum(dim=1, keepdim=True).clamp(min=1e-12)

    figure = Figure(figsize=(1.75 * (n_prompts + 3), 2.1 * len(chosen) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(chosen), n_prompts + 3, squeeze=False)
    titles = ["picture", "true parts", f"support, {model.config.top_k} of {backbone.n_patches}"]
    titles += [f"prompt {j + 1}" for j in range(n_prompts)]
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=10, color=INK)
    owned = parts_of_class(sets.pictures, sets.targets)
    brightest = float(mass.max())
    for row, i in enumerate(chosen):
        image = sets.pictures.images[i]
        true = np.isin(sets.pictures.part_map[i], owned[i].nonzero()[0])
        panels[row, 0].imshow(image)
        panels[row, 1].imshow(true, cmap="gray", vmin=0, vmax=1)
        kept = (mass[row].sum(dim=1) > 0).float().numpy()
        for column, values in enumerate([kept, *mass[row].T.numpy()], start=2):
            shown = _overlay(
                panels[row, column], image, values.reshape(backbone.patch_grid), 1 if column == 2 else brightest
            )
        name, said = (model.class_names[k] for k in (sets.targets[i], predicted[row]))
        verdict = name if name == said else f"{said}\n(it is {name})"
        panels[row, 0].set_ylabel(verdict.replace(" and ", "\nand "), fontsize=8, color=INK)
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.colorbar(shown, ax=panels, label="share of a prompt's mass on a patch", shrink=0.5)
    figure.savefig(target, format="png", dpi=110)


def _overlay(panel: Axes, image: np.ndarray, values: np.ndarray, brightest: float) -> mpl.image.AxesImage:  # type: ignore[type-arg]
    """A faint grey picture under patches coloured by value; patches of no mass stay clear."""
    panel.imshow(255 - (255 - image.mean(axis=2)) * 0.5, cmap="gray", vmin=0, vmax=255)
    return panel.imshow(
        np.ma.masked_less_equal(values, 1e-4),
        extent=(0, SIZE, SIZE, 0),
        cmap="viridis_r",
        vmin=0,
        vmax=brightest,
        alpha=0.85,
    )
