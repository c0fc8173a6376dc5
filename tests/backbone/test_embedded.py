from __future__ import annotations

import pytest

from sotglp import Backbone
from sotglp.backbone.architectures import chosen_weights, is_known, supported_backbones
from sotglp.backbone.embedded import EMBEDDED, TAG


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_loads_by_name_and_has_the_recorded_weights(name: str) -> None:
    backbone = Backbone.load(name)
    assert (backbone.name, backbone.pretrained, backbone.seed) == (name, TAG, None)
    assert backbone.fingerprint == EMBEDDED[name].fingerprint


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_is_listed_with_its_own_tag(name: str) -> None:
    assert is_known(name)
    assert name in supported_backbones()
    assert [chosen_weights(name, pretrained) for pretrained in (None, "auto", "none")] == [TAG, TAG, None]


@pytest.mark.parametrize("name", EMBEDDED)
def test_random_weights_of_an_embedded_model_depend_on_the_seed(name: str) -> None:
    one, again, other = (Backbone.load(name, "none", seed=seed).fingerprint for seed in (1, 1, 2))
    assert one == again
    assert len({one, other, EMBEDDED[name].fingerprint}) == 3
