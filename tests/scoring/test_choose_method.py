from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sotglp import Backbone, SotglpError, SotglpWarning
from sotglp.features.encode import encode_image_features
from sotglp.features.view_cache import ViewCache
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import AUTO_METHODS, FUSED, candidates_on, find_method
from sotglp.methods.registry import build_model
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.choose_method import FOLDS, REPEATS, choose_method, closed_form_correct, n_steps
from sotglp.scoring.cross_fit import fold_training
from sotglp.settings import InferenceConfig, Preset
from sotglp.training.fit import adapt

QUICK: dict[str, Any] = {"epochs": 1, "augment": False, "batch_size": 4}


def candidates(*names: str) -> dict[str, Any]:
    every = candidates_on("tiny", Preset(), QUICK)
    return {name: every[name] for name in names}


def test_a_choice_compares_all_candidates_on_every_shot(tiny_backbone: Backbone, images: ImageSet) -> None:
    found = choose_method(tiny_backbone, images, candidates("gda", "zero-shot", "sot-glp"))
    assert list(found.merits) == ["gda", "zero-shot", "sot-glp"]
    assert found.preferred == "gda"
    assert found.n == len(images)
    assert found == choose_method(tiny_backbone, images, candidates("gda", "zero-shot", "sot-glp"))


def test_the_cost_is_in_fits_and_closed_forms_are_free(tiny_backbone: Backbone, images: ImageSet) -> None:
    assert choose_method(tiny_backbone, images, candidates("gda", "proker")).cost == 0
    settings = candidates("gda", "sot-glp")
    config, n_fold = settings["sot-glp"][1], len(images) - len(images) // FOLDS
    of_fold = n_steps(fold_training(config, len(images), FOLDS), n_fold)
    cost = choose_method(tiny_backbone, images, settings).cost
    assert cost == FOLDS * of_fold / n_steps(config, len(images))


def test_models_of_folds_take_about_half_the_steps_of_a_fit(tiny_backbone: Backbone, images: ImageSet) -> None:
    every = candidates_on("tiny", Preset(), QUICK | {"epochs": 60})
    assert choose_method(tiny_backbone, images, {name: every[name] for name in ("gda", "sot-glp")}).cost < 0.6


def test_choice_and_fit_encode_each_image_once(tiny_backbone: Backbone, images: ImageSet, sent: list[int]) -> None:
    cache, settings = ViewCache(), candidates("gda", "sot-glp")
    chosen = choose_method(tiny_backbone, images, settings, cache_dir=cache).chosen
    adapt(tiny_backbone, images, *settings[chosen], cache_dir=cache)
    assert sum(sent) == len(images)


def test_no_shot_is_judged_by_a_model_that_saw_it(
    tiny_backbone: Backbone, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(tiny_backbone, images.classes, candidates("zero-shot")["zero-shot"][0])
    assert isinstance(model, ZeroShot)
    features = encode_image_features(tiny_backbone, images, InferenceConfig())
    targets = images.targets(images.classes)
    parts: list[tuple[set[Any], set[Any]]] = []

    def rows(some: torch.Tensor) -> set[Any]:
        return {tuple(row) for row in some.tolist()}

    monkeypatch.setattr(model, "fit_features", lambda some, _: parts.append((rows(some), set())))
    compare = model.global_cosines

    def compared(some: torch.Tensor, text: Any) -> torch.Tensor:
        parts[-1][1].update(rows(some))
        return compare(some, text)

    monkeypatch.setattr(model, "global_cosines", compared)
    shares = closed_form_correct(model, features, targets, seed=1)
    assert len(parts) == FOLDS * REPEATS
    assert all(not learned & held_out for learned, held_out in parts)
    # Nothing is learned here, so every split agrees with zero-shot itself.
    own = compare(features, model.encode_text()).argmax(dim=1).numpy() == targets
    np.testing.assert_array_equal(shares, own.astype(float))


def test_one_image_of_a_class_is_reported_and_takes_the_preferred(tiny_backbone: Backbone, images: ImageSet) -> None:
    single = images.take([images.labels.index(name) for name in images.classes])
    with pytest.warns(SotglpWarning, match="gda"):
        found = choose_method(tiny_backbone, single, candidates("gda", "proker"))
    assert (found.chosen, found.n, found.rival) == ("gda", 0, None)


def test_changes_reach_the_methods_that_have_such_a_setting() -> None:
    every = candidates_on("ViT-B-16", Preset(), {"top_k": 3, "seed": 7})
    assert list(every) == [*AUTO_METHODS, "sot-glp"]
    assert every["sot-glp"][0].top_k == 3
    assert {training.seed for _, training in every.values()} == {7}
    assert every["gda"] == find_method("gda").settings_on(Preset(), {"seed": 7})
    with pytest.raises(SotglpError, match="topk"):
        candidates_on("photo", Preset(), {"topk": 3})


def test_the_fused_method_is_preferred_where_the_default_is_fused() -> None:
    every = candidates_on("photo", Preset(), {})
    assert list(every) == [FUSED, *AUTO_METHODS]
    assert every[FUSED][0].residual == AUTO_METHODS[0]
    assert not set(candidates_on("timm:vit_base_patch16_dinov3.lvd1689m", Preset(), {})) & {"sot-glp", "zero-shot"}


def test_a_method_with_a_residual_is_compared_too(tiny_backbone: Backbone, images: ImageSet) -> None:
    settings = {
        "gda": candidates("gda")["gda"],
        FUSED: find_method(FUSED).settings_on(Preset(), {**QUICK, "top_k": 3}),
    }
    found = choose_method(tiny_backbone, images, settings)
    assert list(found.merits) == ["gda", FUSED]
