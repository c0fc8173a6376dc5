from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from PIL import Image

from sotglp.explain.explanation import ClassExplanation, Explanation
from sotglp.explain.map_style import USED, VEIL
from sotglp.explain.plot import VEILS, Canvas, draw_mass, draw_support


def explained(
    width: int = 90, height: int = 30, n_prompts: int = 3, labels: tuple[str, ...] = ("wren",), name: str = "a.png"
) -> Explanation:
    """A picture of which the middle square was seen, in 2 x 2 patches; prompt j takes its patches as 1 : 2 : 3 : 0."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    corners = np.array(
        [[[left, top], [left + side / 2, top]], [[left, top + side / 2], [left + side / 2, top + side / 2]]]
    )
    boxes = np.concatenate([corners, corners + side / 2], axis=-1)
    mass = np.tile(np.array([[1, 2], [3, 0]], np.float32) / 6, (n_prompts, 1, 1))
    classes = tuple(ClassExplanation(label, 0.75, 0.31, 0.12, mass) for label in labels)
    return Explanation(
        Image.new("RGB", (width, height), "teal"),
        name,
        boxes,
        classes,
        np.empty(0, np.float32),
        0.5,
        "gl-mcm",
        1.0,
        0.6,
    )


def drawn(explanation: Explanation) -> Figure:
    figure = explanation.plot()
    figure.savefig(BytesIO(), format="png", dpi=50)
    return figure


def canvas(explanation: Explanation) -> Canvas:
    return Canvas(explanation.image, explanation.boxes, explanation.seen)


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title()]


def texts(figure: Figure) -> str:
    return "\n".join(str(part.get_text()) for part in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90), (64, 64), (640, 20)])
@pytest.mark.parametrize("n_prompts", [1, 4, 9])
def test_a_row_for_each_class_and_a_panel_for_each_prompt(width: int, height: int, n_prompts: int) -> None:
    figure = drawn(explained(width, height, n_prompts, ("wren", "robin")))
    titles = [panel.get_title() for panel in panels(figure)]
    assert titles == ["support: 3 patches", *(f"prompt {j + 1}" for j in range(n_prompts))] * 2
    for panel in panels(figure):
        assert panel.get_xlim() == (0, width)
        assert panel.get_ylim() == (height, 0)


def boxes_of(*collections: Any) -> list[list[float]]:
    return [path.get_extents().extents.tolist() for part in collections for path in part.get_paths()]


def test_the_picture_keeps_its_colours_below_a_veil_that_mass_lifts() -> None:
    explanation = explained()
    mass = np.array([[0.25, USED * 0.49], [0.5, 0]], np.float32)
    axes = Figure().subplots()
    veil = draw_mass(axes, canvas(explanation), mass, 0.5)
    picture, over = axes.images
    np.testing.assert_array_equal(picture.get_array(), np.asarray(explanation.image))
    assert over is veil
    np.testing.assert_array_equal(veil.get_array(), mass)
    opacities = veil.to_rgba(mass, alpha=None)
    assert opacities[..., :3].max() == 0
    assert opacities[..., 3] == pytest.approx(VEIL * (1 - mass / 0.5), abs=VEIL / 256)
    assert veil.get_extent() == [30, 60, 30, 0]
    # Patches that hardly count have no outline.
    dark, light = axes.collections[-2:]
    used = [explanation.boxes[0, 0].tolist(), explanation.boxes[1, 0].tolist()]
    assert boxes_of(dark) == boxes_of(light) == used
    assert dark.get_linewidth()[0] > light.get_linewidth()[0]


def test_patches_beside_a_padded_picture_leave_the_panel_as_it_is() -> None:
    explanation = explained(60, 30)
    padded = Canvas(explanation.image, explanation.boxes + np.array([-40, 0, 20, 0]), (0, 0, 60, 30))
    axes = Figure().subplots()
    draw_mass(axes, padded, explanation.classes[0].mass[0], 0.5)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 60), (30, 0))


@pytest.mark.parametrize(
    ("width", "height", "unseen"),
    [(90, 30, [[0, 0, 30, 30], [60, 0, 90, 30]]), (30, 90, [[0, 0, 30, 30], [0, 60, 30, 90]])],
)
def test_the_support_is_outlined_and_the_unseen_hatched(width: int, height: int, unseen: list[list[int]]) -> None:
    explanation = explained(width, height)
    axes = Figure().subplots()
    assert draw_support(axes, canvas(explanation), explanation.classes[0].mass) == 3
    np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(explanation.image))
    assert boxes_of(axes.collections[-1]) == explanation.boxes[explanation.classes[0].support].tolist()
    hatched = [part for part in axes.collections if isinstance(part, PatchCollection) and part.get_hatch()]
    assert sorted(boxes_of(*hatched)) == unseen


def test_scores_and_verdict_are_told() -> None:
    told = texts(drawn(explained()))
    for part in ("wren", "probability 75.0%", "0.310", "0.120", "(gl-mcm 0.5, threshold 0.6)"):
        assert part in told
    assert "unlike" in told
    assert "unlike" not in texts(drawn(replace(explained(), threshold=0.4)))
    assert "(gl-mcm) 0.5; no threshold" in texts(drawn(replace(explained(), threshold=None)))
    # Names with dollars and line ends are shown as they are.
    assert "a_b^c" in texts(drawn(explained(labels=(r"$\bad{ $", "a_b^c"), name="a\nb$x$.png")))


def test_the_scale_gets_lighter_all_the_way() -> None:
    red, green, blue, opacity = VEILS(np.linspace(0, 1, 256)).T
    assert (red.max(), green.max(), blue.max()) == (0, 0, 0)
    assert (np.diff(opacity) < 0).all()


def test_all_panels_share_one_scale() -> None:
    explanation = explained(labels=("wren", "robin"))
    strong = replace(explanation.classes[1], mass=explanation.classes[1].mass * 0.5)
    figure = drawn(replace(explanation, classes=(explanation.classes[0], strong)))
    veils = [panel.images[1] for panel in panels(figure) if panel.get_title().startswith("prompt")]
    assert len(veils) == 6
    assert {veil.get_clim() for veil in veils} == {(0, 0.5)}
