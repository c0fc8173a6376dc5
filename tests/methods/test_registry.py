from __future__ import annotations

import pytest
import torch

from sotglp import Backbone, SotglpError
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import METHODS, find_method
from sotglp.methods.registry import KINDS, build_model
from sotglp.settings import Preset, load_preset, presets

NAMES = ["cat", "golden_retriever", "polka dot"]


def start(backbone: Backbone, name: str, seed: int = 1) -> AdaptedModel:
    return build_model(backbone, NAMES, find_method(name).settings_on(Preset(), {})[0], seed)


def test_every_method_is_here_by_its_name() -> None:
    frozen = "zero-shot zero-shot-ensemble linear-probe tip-adapter tip-adapter-f clip-adapter"
    recent = "gda proker pool lp++ task-res clap clip-lora"
    prompts = "coop locoop plot gallop sot-glp sot-glp-projection-free sot-glp-gda sot-glp-proker sot-glp-pool"
    assert list(METHODS) == f"{frozen} {recent} {prompts}".split()
    for name, method in METHODS.items():
        assert find_method(name) is method
        assert method.name == name
        assert KINDS[method.kind].Config is method.config_class
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    with pytest.raises(SotglpError, match=r"no method 'tip-adaptor' \(did you mean tip-adapter\?\)"):
        find_method("tip-adaptor")
    with pytest.raises(SotglpError, match=r"choose one of .*, sot-glp-pool$"):
        find_method("x")


@pytest.mark.parametrize("preset", presets())
def test_every_method_takes_every_preset(preset: str) -> None:
    for method in METHODS.values():
        settings, training = method.settings_on(load_preset(preset), {})
        assert type(settings) is method.config_class
        assert method.settings.items() <= settings.model_dump().items()
        assert method.training.items() <= training.model_dump().items()


@pytest.mark.parametrize("name", METHODS)
def test_settings_tell_which_model_they_belong_to(tiny_backbone: Backbone, images: torch.Tensor, name: str) -> None:
    model = start(tiny_backbone, name)
    assert type(model) is KINDS[METHODS[name].kind]
    settings = METHODS[name].settings_on(Preset(), {})[0]
    assert model.config == settings
    with pytest.raises(SotglpError, match="give the same prompt"):
        build_model(tiny_backbone, ["blue sea", "blue_sea"], settings)
    assert model.class_names == tuple(NAMES)
    outputs = model(images)
    image_features, _ = tiny_backbone.encode_image(images)
    assert torch.equal(model.global_cosines(image_features, model.encode_text()), outputs.global_logits)
    assert outputs.global_logits.shape == outputs.local_logits.shape == (5, 3)
    assert outputs.patch_logits.shape == (5, 16, 3)
    assert all(part.isfinite().all() for part in outputs if part is not None)
    # No model learns the backbone.
    assert not {id(parameter) for parameter in model.learned} & {id(own) for own in tiny_backbone.parameters()}


@pytest.mark.parametrize("name", METHODS)
def test_what_is_drawn_at_the_start_comes_from_the_seed(tiny_backbone: Backbone, name: str) -> None:
    def state(seed: int) -> dict[str, torch.Tensor]:
        model = start(tiny_backbone, name, seed)
        return {part: tensor for part in model.kept if (tensor := getattr(model, part)) is not None}

    torch.manual_seed(0)
    first = state(3)
    torch.manual_seed(1)
    again, other = state(3), state(4)
    assert all(torch.equal(value, again[part]) for part, value in first.items())
    drawn = {part for part, value in first.items() if not torch.equal(value, other[part])}
    expected = {"clip-adapter": {"down", "up"}, "clip-lora": {"image_down", "text_down"}}
    assert drawn == expected.get(name, {"local_prompts"} if "local_prompts" in first else set())
