import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from sotglp import SOTGLP, Backbone
from sotglp.demo import comparison
from sotglp.demo.comparison import (
    METHODS,
    SETTINGS,
    compare_methods,
    draw_shots_of_task,
    draw_test_sets,
    evaluate_method,
    fit_method,
    measure_prompts,
    part_shares,
    parts_of_class,
    pixels_of,
)
from sotglp.demo.task import N_CLASSES, few_shot_task
from sotglp.demo.world import NO_PART, Pictures
from sotglp.settings import ModelConfig, Preset


def config_of(method):
    return method.settings_on(Preset(), {})[0]


@pytest.fixture(scope="module")
def backbone():
    return Backbone.load("tiny")


@pytest.fixture(scope="module")
def sets():
    return draw_test_sets(3, 30, 99)


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
    measured = measure_prompts(model, sets)
    assert measured["mass_on_parts"] == pytest.approx(measured["chance"], abs=1e-6)
    assert measured["overlap"] == pytest.approx(1, abs=1e-5)


def test_zero_shot_is_the_nearest_name(backbone, sets):
    model = fit_method(METHODS[0], backbone, draw_shots_of_task(1, 1), SETTINGS)
    with torch.no_grad():
        names = [f"a photo of a {name}" for name in few_shot_task().names]
        text = F.normalize(backbone.clip.encode_text(open_clip.tokenize(names)), dim=-1)
        pixels = pixels_of(backbone, sets.images.images)
        image = F.normalize(backbone.clip.encode_image(pixels), dim=-1)
        torch.testing.assert_close(model(pixels).global_logits, image @ text.T, rtol=1e-4, atol=1e-5)
    expected = float(((image @ text.T).argmax(dim=1).numpy() == sets.targets).mean())
    assert evaluate_method(model, sets)["accuracy"] == pytest.approx(expected)
    assert expected > 3 / N_CLASSES


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_trains_its_own_parameters_and_is_evaluated_alike(backbone, sets, method):
    before = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    settings = SETTINGS.model_copy(update={"epochs": 1})
    model = fit_method(method, backbone, draw_shots_of_task(2, 1), settings)
    start = SOTGLP(backbone, few_shot_task().names, **config_of(method).model_dump(), seed=settings.seed)
    own = {name: value for name, value in start.named_parameters() if not name.startswith("backbone.")}
    moved = {name for name, value in own.items() if not torch.equal(value, model.get_parameter(name))}
    assert moved == (set(own) if method.uses_shots else set())
    assert all(torch.equal(before[name], value) for name, value in backbone.clip.state_dict().items())
    result = evaluate_method(model, sets)
    assert result["n"] == 60
    assert set(result["ood"]) == {"near", "mid", "far"}
    low, high = result["interval"]
    assert low < result["accuracy"] < high
    assert (result["local"] is None) == (config_of(method).branches == "global")


def test_a_part_with_another_fill_is_a_stranger_and_so_is_one_of_another_class():
    task = few_shot_task()
    one, two, three = task.parts[0]
    foreign = next(part for part in task.pool if part.tolist() not in task.parts[0].tolist())
    refilled = one + np.array([0, 0, 1 if one[2] == 0 else -1])
    nothing = [NO_PART] * 3
    parts = np.array([[three, one, foreign, two], [one, nothing, three, refilled], [nothing] * 4])
    pictures = Pictures(np.zeros((3, 64, 64, 3), np.uint8), np.zeros((3, 64, 64), np.uint8), parts)
    assert parts_of_class(pictures, np.zeros(3, np.int64)).tolist() == [
        [True, True, False, True],
        [True, False, True, False],
        [False] * 4,
    ]


def test_shares_of_parts_on_a_grid_that_is_not_square(sets):
    shares = part_shares(sets.pictures, sets.targets, (2, 16)).reshape(-1, 2, 16)
    finer = part_shares(sets.pictures, sets.targets, (16, 16)).reshape(-1, 2, 8, 16)
    assert shares.numpy() == pytest.approx(finer.mean(dim=2).numpy(), abs=1e-6)


@pytest.mark.parametrize("matching", ["transport", "per-prompt"])
def test_looking_at_prompts_against_a_slow_loop(backbone, sets, matching, monkeypatch):
    model = SOTGLP(backbone, few_shot_task().names, n_local_prompts=3, top_k=6, matching=matching, seed=5)
    monkeypatch.setattr(comparison, "BATCH_SIZE", 7)  # of 60 pictures: the last share of them is smaller
    measured = measure_prompts(model, sets)
    shares = part_shares(sets.pictures, sets.targets, backbone.patch_grid).double().numpy()
    plans, supports = model.transport(pixels_of(backbone, sets.images.images))
    pairs = ((0, 1), (0, 2), (1, 2))
    on_parts, overlaps = [], []
    for plan, support, target, share in zip(plans, supports, sets.targets, shares, strict=True):
        mass = np.zeros((64, 3))
        for k in range(6):
            for j in range(3):
                patch = support[target, k, j] if matching == "per-prompt" else support[target, k]
                mass[patch, j] += float(plan[target, k, j])
        on_parts.append((mass.sum(axis=1) * share).sum() / mass.sum())
        columns = (mass / mass.sum(axis=0)).T
        overlaps.append(np.mean([np.minimum(columns[a], columns[b]).sum() for a, b in pairs]))
    text = F.normalize(model.encode_text().local.detach(), dim=-1)
    cosines = torch.stack([(text[:, a] * text[:, b]).sum(dim=-1) for a, b in pairs])
    expected = (np.mean(on_parts), shares.mean(), np.mean(overlaps), float(cosines.mean()))
    keys = ("mass_on_parts", "chance", "overlap", "similarity")
    assert [measured[key] for key in keys] == pytest.approx(expected, abs=1e-5)


def test_no_test_picture_is_a_training_picture(sets):
    train = draw_shots_of_task(2, 1)
    assert train.labels == few_shot_task().names * 2
    others = [image for images in sets.others.values() for image in images.images]
    assert len({image.tobytes() for image in [*train.images, *sets.images.images, *others]}) == 40 + 60 + 90


def test_same_seed_same_results_whatever_torchs_own_generator_does(backbone):
    few = draw_test_sets(1, 5, 99)
    settings = SETTINGS.model_copy(update={"epochs": 1, "shots": 1, "views": 1})

    def learned(seed, noise):
        torch.manual_seed(noise)
        how = settings.model_copy(update={"seed": seed})
        results, model = compare_methods(backbone, draw_shots_of_task(1, seed), few, how)
        for one in results.values():
            del one["seconds"]
        return results, [value for name, value in model.named_parameters() if not name.startswith("backbone.")]

    (results, values), (again, same), (_, others) = learned(1, 1), learned(1, 2), learned(2, 1)
    assert list(results) == [method.name for method in METHODS]
    assert results == again
    assert len(values) == 3
    assert all(torch.equal(one, other) for one, other in zip(values, same, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(values, others, strict=True))


def test_methods_differ_in_their_settings_alone(backbone, sets, monkeypatch):
    calls, judged = [], []
    adapt = comparison.adapt

    def record(*arguments, **how):
        calls.append((arguments, how))
        return adapt(*arguments, **how)

    def note(model, on):
        judged.append((model, on))
        return {"accuracy": 0.5}

    monkeypatch.setattr(comparison, "adapt", record)
    monkeypatch.setattr(comparison, "evaluate_method", note)
    train = draw_shots_of_task(1, 1)
    settings = SETTINGS.model_copy(update={"epochs": 1, "shots": 1, "views": 1})
    results, last = compare_methods(backbone, train, sets, settings)
    assert list(results) == [method.name for method in METHODS]
    zero_shot, *trained = METHODS
    assert [config for (_, _, config, _), _ in calls] == [config_of(method) for method in trained]
    for (on, images, _, how), named in calls:
        assert on is backbone
        assert images is train
        assert how is settings
        assert named == calls[0][1]
    assert all(on is sets for _, on in judged)
    assert judged[-1][0] is last
    assert results[zero_shot.name]["seconds"] == 0
    assert all(results[method.name]["seconds"] > 0 for method in trained)
    # SOT-GLP is the model as published, and the others depart from it only where they say.
    published = ModelConfig().model_dump()
    assert config_of(METHODS[-1]) == ModelConfig()
    for method in METHODS:
        config = config_of(method).model_dump()
        assert {name for name in config if config[name] != published[name]} == set(method.settings)
