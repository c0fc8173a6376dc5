"""The drawings of docs/method.md: `python benchmarks/method_pictures.py`.

A diagram of the two streams of an image, and three pictures of one painted test picture as a model of the packaged
backbone sees it: which patches its class keeps, how transport shares them among the prompts, and what becomes of the
scores. Writes docs/pictures/method_*; takes half a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.backbone.tiny import NAME
from sotglp.demo.comparison import SETTINGS, draw_shots_of_task, draw_test_sets, pixels_of
from sotglp.demo.task import few_shot_task
from sotglp.settings import ModelConfig
from sotglp.training.fit import adapt
from sotglp.transport.solver import sinkhorn

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
INK, FRAME = "#1a1a1a", "#e8590c"
ORDINARY, VALUE, OUTSIDE = "#dbe4f0", "#fde3d0", "#eeeeee"
TEST_SEED = 2_000_000
SHOWN_CLASSES = 5
EPSILONS = (1.0, 0.1, 0.01)


class Seen:
    """One test picture of the demonstration's task, and what a model fitted to it computes.

    Attributes
    ----------
    similarity : Tensor
        Cosines S of patches and local prompts, (P, C, N).
    plan, support : Tensor
        Of all classes, (C, K, N) and (C, K).
    """

    def __init__(self, chosen: int) -> None:
        backbone = Backbone.load(NAME)
        names = few_shot_task().names
        fitted = adapt(backbone, draw_shots_of_task(16, seed=1), ModelConfig(), SETTINGS, classes=names)
        model = fitted.model
        assert isinstance(model, SOTGLP)
        assert model.local_projection is not None
        sets = draw_test_sets(2, 1, TEST_SEED)
        self.model, self.picture, self.target = model, sets.pictures.images[chosen], int(sets.targets[chosen])
        pixels = pixels_of(backbone, [sets.images.images[chosen]])
        with torch.no_grad():
            tokens = backbone.encode_image(pixels)[1]
            patches = F.normalize(backbone.project_patches(F.linear(tokens, model.local_projection)), dim=-1)[0]
            prompts = F.normalize(model.encode_text().local, dim=-1)
            self.similarity = torch.einsum("pd,cnd->pcn", patches, prompts)
            self.outputs = model(pixels)
        plan, support = model.transport(pixels)
        self.plan, self.support = plan[0], support[0]

    def patch(self, index: int) -> Any:
        """Pixels of one patch."""
        size = len(self.picture) // self.model.backbone.patch_grid[0]
        row, column = divmod(index, self.model.backbone.patch_grid[1])
        return self.picture[row * size : (row + 1) * size, column * size : (column + 1) * size]


def canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def box(panel: Axes, x: float, y: float, width: float, text: str, colour: str, height: float = 0.62) -> None:
    panel.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.05", fc=colour, ec=INK, lw=0.9
        )
    )
    panel.text(x, y, text, ha="center", va="center", fontsize=9.5, color=INK)


def arrow(
    panel: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0, dashed: bool = False
) -> None:
    panel.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": INK,
            "lw": 1.0,
            "shrinkA": 0,
            "shrinkB": 0,
            "connectionstyle": f"arc3,rad={bend}",
            "linestyle": "--" if dashed else "-",
        },
    )


def plus(panel: Axes, x: float, y: float) -> None:
    panel.plot([x], [y], "o", ms=15, mfc="white", mec=INK, mew=0.9)
    panel.text(x, y - 0.01, "+", ha="center", va="center", fontsize=12, color=INK)


def draw_stream(target: Path) -> None:
    """One block: the ordinary stream above, the patch stream below, with the weights that both share between them."""
    figure = canvas(9.2, 4.4)
    panel = figure.add_subplot()
    panel.set(xlim=(-0.3, 12.6), ylim=(-0.35, 5.7))
    panel.axis("off")
    panel.add_patch(Rectangle((1.55, 0.15), 7.75, 5.2, fc="none", ec="#888888", lw=0.9, ls=":"))
    panel.text(1.7, 5.1, "block i, repeated", fontsize=9, color="#555555", va="center")
    box(panel, 0.65, 4.4, 1.1, "h\nall tokens", ORDINARY, 0.8)
    box(panel, 0.65, 0.9, 1.1, "r\npatches", VALUE, 0.8)
    box(panel, 2.55, 3.2, 1.1, "ln_1", OUTSIDE)
    box(panel, 4.25, 3.2, 1.3, "q, k, v\nin_proj", OUTSIDE, 0.8)
    box(panel, 6.4, 3.55, 2.0, "softmax(q kᵀ) v\nout_proj  →  o", ORDINARY, 0.8)
    box(panel, 6.4, 2.1, 2.0, "softmax(v vᵀ) v\nout_proj  →  u", VALUE, 0.8)
    plus(panel, 7.9, 4.4)
    plus(panel, 7.9, 0.9)
    box(panel, 8.72, 4.4, 0.75, "+ mlp\n(ln_2)", ORDINARY, 0.75)
    arrow(panel, (1.25, 4.4), (7.65, 4.4))
    arrow(panel, (1.9, 4.4), (2.3, 3.55), bend=0.15)
    arrow(panel, (3.15, 3.2), (3.55, 3.2))
    arrow(panel, (4.95, 3.35), (5.35, 3.5))
    arrow(panel, (4.95, 3.0), (5.35, 2.3))
    arrow(panel, (7.45, 3.6), (7.85, 4.15), bend=0.15)
    arrow(panel, (7.45, 2.1), (7.85, 1.15), bend=-0.15)
    arrow(panel, (1.25, 0.9), (7.65, 0.9))
    arrow(panel, (8.13, 4.4), (8.29, 4.4))
    box(panel, 10.35, 4.4, 1.25, "ln_post, proj\nof CLS", ORDINARY, 0.8)
    box(panel, 10.35, 0.9, 1.25, "ln_post,\nprojection", VALUE, 0.8)
    arrow(panel, (9.15, 4.4), (9.67, 4.4))
    arrow(panel, (8.13, 0.9), (9.67, 0.9))
    panel.text(11.15, 4.4, "image feature\n(B, d)", fontsize=9.5, va="center", color=INK)
    panel.text(11.15, 0.9, "patch features\n(B, P, d)", fontsize=9.5, va="center", color=INK)
    panel.text(1.75, 1.3, "starts as h₀ + o₁, then + u₁, + u₂, …", fontsize=9, color="#555555", va="center")
    figure.savefig(target, format="svg", metadata={"Date": None})


def mark(panel: Axes, indices: Tensor, columns: int, size: int, colour: str = FRAME) -> None:
    for index in indices.tolist():
        row, column = divmod(index, columns)
        panel.add_patch(Rectangle((column * size - 0.5, row * size - 0.5), size, size, fill=False, ec=colour, lw=1.6))


def bare(panel: Axes, title: str) -> None:
    panel.set_title(title, fontsize=10, color=INK)
    panel.set_xticks([])
    panel.set_yticks([])


def draw_support(seen: Seen, target: Path) -> None:
    """The picture, then for its class and for another one: mean cosine of each patch, and the K kept patches."""
    rows, columns = seen.model.backbone.patch_grid
    size = len(seen.picture) // rows
    means = seen.similarity.mean(dim=-1)
    other = int(seen.outputs.local_logits[0].argsort(descending=True)[len(seen.model.class_names) // 2])
    low, high = (float(value) for value in (means[:, [seen.target, other]].min(), means[:, [seen.target, other]].max()))
    figure = canvas(10, 2.9)
    panels = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1])
    panels[0].imshow(seen.picture)
    bare(panels[0], f"a picture, {rows * columns} patches")
    for index in range(1, rows):
        panels[0].axhline(index * size - 0.5, color="white", lw=0.3)
        panels[0].axvline(index * size - 0.5, color="white", lw=0.3)
    for position, (one, called) in enumerate(((seen.target, "its class"), (other, "another class"))):
        heat, kept = panels[1 + 2 * position], panels[2 + 2 * position]
        shown = heat.imshow(
            means[:, one].reshape(rows, columns),
            extent=(-0.5, rows * size - 0.5, columns * size - 0.5, -0.5),
            cmap="viridis",
            vmin=low,
            vmax=high,
        )
        mark(heat, seen.support[one], columns, size)
        bare(heat, f"mean cosine,\n{called}")
        kept.imshow(seen.picture)
        mark(kept, seen.support[one], columns, size)
        bare(kept, f"its {seen.model.top_k} patches\nfor {called}")
        name = seen.model.class_names[one].replace(" and ", "\nand ")
        heat.set_xlabel(name, fontsize=8, color=INK)
    figure.colorbar(shown, ax=panels, shrink=0.7, pad=0.01).ax.tick_params(labelsize=8)
    figure.savefig(target, dpi=110)


def draw_plan(seen: Seen, target: Path) -> None:
    """Cosines on the support, and plans of three regularisations: rows are patches, columns prompts."""
    support = seen.support[seen.target]
    cosines = seen.similarity[support, seen.target]
    plans = {epsilon: sinkhorn(1 - cosines, epsilon) for epsilon in EPSILONS}
    used = plans[seen.model.config.epsilon]
    assert torch.allclose(used, seen.plan[seen.target], atol=1e-5), "the plan drawn is not the model's"
    brightest = max(float(plan.max()) for plan in plans.values())
    figure = canvas(9.2, 4.6)
    panels = figure.subplots(1, 2 + len(EPSILONS), width_ratios=[0.35, 1, 1, 1, 1])
    strip = np.concatenate(
        [np.pad(seen.patch(i), ((1, 1), (1, 1), (0, 0)), constant_values=255) for i in support.tolist()]
    )
    panels[0].imshow(strip)
    bare(panels[0], "patch")
    panels[0].axis("off")
    panels[1].imshow(cosines, cmap="cividis", aspect="auto")
    numbers(panels[1], cosines, "cosine S", "{:.2f}", dark_below=float(cosines.mean()))
    for panel, (epsilon, plan) in zip(panels[2:], plans.items(), strict=True):
        panel.imshow(plan, cmap="viridis", vmin=0, vmax=brightest, aspect="auto")
        suffix = " (default)" if epsilon == seen.model.config.epsilon else ""
        numbers(panel, plan, f"plan T, ε = {epsilon:g}{suffix}", "{:.3f}", dark_below=brightest / 2)
    figure.savefig(target, dpi=110)


def numbers(panel: Axes, values: Tensor, title: str, form: str, dark_below: float) -> None:
    bare(panel, title)
    panel.set_xticks(range(values.shape[1]), [str(j + 1) for j in range(values.shape[1])], fontsize=8)
    panel.set_xlabel("local prompt", fontsize=9, color=INK)
    for row, column in np.ndindex(*values.shape):
        value = float(values[row, column])
        colour = "white" if value < dark_below else INK
        panel.text(column, row, form.format(value), ha="center", va="center", fontsize=7, color=colour)


def draw_loss(seen: Seen, target: Path) -> None:
    """Softmax of the global scores, of the local ones, and of their mean: two losses, one prediction."""
    scale = seen.model.backbone.logit_scale
    global_, local = seen.outputs.global_logits[0], seen.outputs.local_logits[0]
    three = (
        (scale * global_, "global: softmax(s g)"),
        (scale * local, "local: softmax(s ℓ)"),
        (scale * (global_ + local) / 2, "both: softmax(s (g + ℓ) / 2)"),
    )
    likely = three[2][0].argsort(descending=True)[:SHOWN_CLASSES].tolist()
    figure = canvas(10, 2.7)
    panels = figure.subplots(1, 4, width_ratios=[0.75, 1, 1, 1])
    panels[0].imshow(seen.picture)
    bare(panels[0], "the picture")
    for panel, (logits, title) in zip(panels[1:], three, strict=True):
        probabilities = logits.softmax(dim=0)
        colours = [FRAME if one == seen.target else "#9fb3cc" for one in likely]
        bars = panel.barh(range(len(likely)), probabilities[likely].tolist(), color=colours)
        panel.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
        panel.invert_yaxis()
        panel.set_xlim(0, 1.15)
        panel.set_xticks([0, 0.5, 1])
        panel.tick_params(labelsize=8)
        panel.set_yticks([])
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        panel.set_title(title, fontsize=9.5, color=INK)
        loss = -float(logits.log_softmax(dim=0)[seen.target])
        panel.set_xlabel("" if panel is panels[-1] else f"cross entropy {loss:.2f}", fontsize=9, color=INK)
    names = [seen.model.class_names[one].replace(" and ", "\n", 1) for one in likely]
    panels[1].set_yticks(range(len(likely)), names, fontsize=7)
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=int, default=11, help="which test picture is shown")
    parser.add_argument("--out", type=Path, default=PICTURES)
    arguments = parser.parse_args()
    # The same file at each run, with text as text.
    matplotlib.rcParams.update({"svg.hashsalt": "sotglp", "svg.fonttype": "none", "font.family": "DejaVu Sans"})
    draw_stream(arguments.out / "method_stream.svg")
    seen = Seen(arguments.picture)
    draw_support(seen, arguments.out / "method_support.png")
    draw_plan(seen, arguments.out / "method_plan.png")
    draw_loss(seen, arguments.out / "method_loss.png")
    right = int(seen.model.probabilities(seen.outputs)[0].argmax()) == seen.target
    print(f"class {seen.model.class_names[seen.target]!r}, predicted right: {right}")


if __name__ == "__main__":
    main()
