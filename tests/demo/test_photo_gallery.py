from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sotglp import SOTGLP, Backbone
from sotglp.demo import panels
from sotglp.demo.photo_gallery import draw_photo_gallery
from sotglp.demo.photo_set import packaged_photos
from sotglp.demo.photographs import SHOWN
from sotglp.explain.explanation import Explanation, explain_each
from sotglp.images.image_set import ImageSet

N_PROMPTS, TOP_K = 3, 7
NAMES = ("red_bell_pepper", "kiwi", "lemon")
LABELS = ["kiwi", "red_bell_pepper"]


@pytest.fixture(scope="module")
def explanations() -> list[Explanation]:
    model = SOTGLP(Backbone.load("tiny"), NAMES, n_local_prompts=N_PROMPTS, top_k=TOP_K)
    photos = ImageSet.from_items([packaged_photos() / "test" / name for name in SHOWN[:2]])
    return list(explain_each(model, photos, ["kiwi"]))


@pytest.fixture(scope="module")
def figure(explanations: list[Explanation], tmp_path_factory: pytest.TempPathFactory) -> Figure:
    """The figure behind the file."""
    figures: list[Figure] = []
    path = tmp_path_factory.mktemp("gallery") / "prompts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panels, "Figure", lambda *args, **how: figures.append(Figure(*args, **how)) or figures[-1])
        draw_photo_gallery(explanations, LABELS, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    return figures[0]


def test_a_row_for_each_photo_with_its_support_and_each_prompt(figure: Figure, explanations: list[Explanation]) -> None:
    assert len(figure.axes) == 2 * (N_PROMPTS + 2) + 1
    rows = np.array(figure.axes[:-1]).reshape(2, N_PROMPTS + 2)
    assert [panel.get_title() for panel in rows[0]] == ["photo", "support", "prompt 1", "prompt 2", "prompt 3"]
    for (photo, _, *prompts), explanation in zip(rows, explanations, strict=True):
        assert np.array_equal(photo.images[0].get_array(), np.asarray(explanation.image))
        for panel, mass in zip(prompts, explanation.classes[0].mass, strict=True):
            drawn = panel.images[1]
            assert np.asarray(drawn.get_array()) == pytest.approx(mass)
            assert drawn.get_clim() == pytest.approx(figure.axes[-1].get_ylim())  # one scale tells all of them


def test_rows_name_the_class_and_a_wrong_prediction(figure: Figure) -> None:
    rows = np.array(figure.axes[:-1]).reshape(2, N_PROMPTS + 2)
    labels = [" ".join(panel.get_ylabel().split()) for panel in rows[:, 0]]
    assert labels == ["kiwi (correct)", "red bell pepper (predicted kiwi)"]


def test_nothing_is_cut_off(figure: Figure) -> None:
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        for text in (axes.title, axes.yaxis.label):
            box = text.get_window_extent(renderer)
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
