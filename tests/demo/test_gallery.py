from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sotglp import SOTGLP, Backbone
from sotglp.demo import panels as frame
from sotglp.demo.comparison import draw_test_sets, parts_of_class, pixels_of
from sotglp.demo.gallery import draw_gallery
from sotglp.demo.task import few_shot_task

N_PROMPTS, TOP_K = 3, 7


@pytest.fixture(scope="module")
def sets():
    return draw_test_sets(1, 2, 99)


@pytest.fixture(scope="module")
def model():
    return SOTGLP(Backbone.load("tiny"), few_shot_task().names, n_local_prompts=N_PROMPTS, top_k=TOP_K)


@pytest.fixture(scope="module")
def draw(model, sets, tmp_path_factory):
    """Return a function that draws pictures and returns the figure behind the file."""

    def figure_of(*chosen):
        figures, path = [], tmp_path_factory.mktemp("gallery") / "plan"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frame, "Figure", lambda *args, **how: figures.append(Figure(*args, **how)) or figures[-1])
            draw_gallery(model, sets, list(chosen), path)
        with Image.open(path) as picture:
            assert picture.format == "PNG"
        return figures[0]

    return figure_of


@pytest.fixture(scope="module")
def drawn(draw):
    return draw(4, 0, 13)


def panels(figure):
    """Axes by row and column, without that of the colour scale."""
    return np.array(figure.axes[: 3 * (N_PROMPTS + 3)]).reshape(3, N_PROMPTS + 3)


def test_a_panel_for_each_picture_its_parts_its_support_and_each_prompt(drawn, model, sets):
    assert len(drawn.axes) == 3 * (N_PROMPTS + 3) + 1
    titles = [panel.get_title() for panel in panels(drawn)[0]]
    assert titles == ["picture", "true parts", "support: 7 of 64", "prompt 1", "prompt 2", "prompt 3"]
    belongs = parts_of_class(sets.pictures, sets.targets)
    for row, i in enumerate((4, 0, 13)):
        picture, parts, *_ = panels(drawn)[row]
        assert np.array_equal(picture.images[0].get_array(), sets.pictures.images[i])
        slots = [slot for slot in range(4) if belongs[i, slot]]
        assert np.array_equal(parts.images[0].get_array(), np.isin(sets.pictures.part_map[i], slots))


def test_patches_are_those_of_the_class_that_was_predicted(drawn, model, sets):
    pixels = pixels_of(model.backbone, sets.images.images)[[4, 0, 13]]
    predicted = model.predict_proba(pixels).argmax(dim=1).tolist()
    plans, supports = model.transport(pixels)
    scale = drawn.axes[-1]
    for row, k in enumerate(predicted):
        kept, *prompts = panels(drawn)[row][2:]
        outlined = [path.get_extents().extents for path in kept.collections[2].get_paths()]
        patches = [int(top // 8 * 8 + left // 8) for left, top, *_ in outlined]
        assert patches == np.sort(supports[row, k].numpy()).tolist()
        for j, panel in enumerate(prompts):
            expected = np.zeros(64)
            column = plans[row, k, :, j].double()
            expected[supports[row, k].numpy()] = (column / column.sum()).numpy()
            assert np.asarray(panel.images[1].get_array()).ravel() == pytest.approx(expected, abs=1e-6)
            assert panel.images[1].get_clim() == pytest.approx(scale.get_ylim())  # one scale tells all of them
            # A patch is drawn where its pixels are.
            assert panel.images[1].get_extent() == list(panel.images[0].get_extent())


def test_both_verdicts_can_be_read(draw, model, monkeypatch):
    monkeypatch.setattr(model, "predict_proba", lambda _: torch.eye(20)[[0, 5]])
    figure = draw(0, 1)
    labels = [figure.axes[row * (N_PROMPTS + 3)].get_ylabel().replace("\n", " ") for row in (0, 1)]
    names = model.class_names
    assert labels == [f"{names[0]} (correct)", f"{names[1]} (predicted {names[5]})"]


@pytest.mark.parametrize("chosen", [[2], [0, 1, 2, 3, 4]], ids=len)
def test_nothing_overlaps_or_is_cut_off(draw, chosen):
    figure = draw(*chosen)
    figure.canvas.draw()  # the file has another resolution, which is forgotten once it is written
    renderer = figure.canvas.get_renderer()
    texts = [text for axes in figure.axes for text in (axes.title, axes.yaxis.label) if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    assert len(boxes) == (N_PROMPTS + 3) + len(chosen) + 1 + len(figure.axes)
    whole = figure.bbox
    for box in boxes:
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1
    for one, other in combinations(boxes, 2):
        shared = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(shared) <= 0.5, (one, other)
