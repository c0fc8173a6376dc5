import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.demo.comparison import (
    METHODS,
    SETTINGS,
    draw_shots_of_task,
    draw_test_sets,
    fit_method,
    judge,
    look_at_prompts,
    part_shares,
    parts_of_class,
    wilson_interval,
)
from sotglp.demo.gallery import draw_gallery
from sotglp.demo.pretrain import as_pixels
from sotglp.demo.pretraining_loss import encode_texts
from sotglp.demo.task import N_CLASSES, few_shot_task


@pytest.fixture(scope="module")
def backbone():
    return Backbone.load("tiny")


@pytest.fixture(scope="module")
def sets():
    return draw_test_sets(3, 30, 99)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (600, 600), (311, 600)])
def test_the_interval_is_wilsons(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson_interval(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_shares_of_parts_agree_with_counting_pixels_and_leave_strangers_out(sets):
    shares = part_shares(sets.pictures, sets.targets, (8, 8))
    owned = parts_of_class(sets.pictures, sets.targets)
    assert (owned.sum(axis=1) == 3).all()
    classes = few_shot_task().parts
    for i in range(10):
        wanted = {tuple(part) for part in classes[sets.targets[i]].tolist()}
        slots = [slot for slot in range(4) if tuple(sets.pictures.parts[i, slot]) in wanted]
        assert owned[i].nonzero()[0].tolist() == slots
        for patch in range(64):
            row, column = divmod(patch, 8)
            block = sets.pictures.part_map[i, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            assert float(shares[i, patch]) == pytest.approx(np.isin(block, slots).mean(), abs=1e-6)


def test_mass_spread_over_all_patches_lies_on_parts_as_chance_has_it(backbone, sets):
    model = SOTGLP(backbone, few_shot_task().names, matching="uniform", top_k=64)
    looked = look_at_prompts(model, sets)
    assert looked["mass_on_parts"] == pytest.approx(looked["chance"], abs=1e-6)
    assert looked["overlap"] == pytest.approx(1, abs=1e-5)


def test_zero_shot_is_the_nearest_name(backbone, sets):
    model = fit_method(METHODS[0], backbone, draw_shots_of_task(1, 1), SETTINGS)
    with torch.no_grad():
        names = [f"a photo of a {name}" for name in few_shot_task().names]
        text = F.normalize(encode_texts(backbone.clip, names), dim=-1)
        pixels = as_pixels(sets.pictures.images)
        image = F.normalize(backbone.clip.encode_image(pixels), dim=-1)
        torch.testing.assert_close(model(pixels).global_logits, image @ text.T, rtol=1e-4, atol=1e-5)
    expected = float(((image @ text.T).argmax(dim=1).numpy() == sets.targets).mean())
    assert judge(model, sets)["accuracy"] == pytest.approx(expected)
    assert expected > 3 / N_CLASSES


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: method.name)
def test_every_method_learns_and_is_judged_alike(backbone, sets, method):
    train = draw_shots_of_task(2, 1)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    model, again = (fit_method(method, backbone, train, settings) for _ in range(2))
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    result = judge(model, sets)
    assert result["n"] == 60
    assert set(result["ood"]) == {"near", "mid", "far"}
    low, high = result["interval"]
    assert low < result["accuracy"] < high
    assert (result["local"] is None) == (method.name == "global only")


def test_the_gallery_has_a_row_for_each_picture(backbone, sets, tmp_path):
    from PIL import Image

    model = SOTGLP(backbone, few_shot_task().names)
    draw_gallery(model, sets, [0, 1], tmp_path / "two.png")
    draw_gallery(model, sets, [0, 1, 2, 3], tmp_path / "four.png")
    two, four = (Image.open(tmp_path / name) for name in ("two.png", "four.png"))
    assert two.width == four.width
    assert four.height > 1.7 * two.height
