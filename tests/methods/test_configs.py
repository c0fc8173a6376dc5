from __future__ import annotations

from typing import Any

import pytest

from sotglp import Backbone, SotglpError
from sotglp.methods.registry import KINDS
from support.prompt_models import NAMES


@pytest.mark.parametrize(
    ("kind", "setting", "value", "words"),
    [
        *(
            (kind, setting, value, f"{setting} = {value!r}")
            for kind, setting, value in (
                ("sot-glp", "local_contexts", "some"),
                ("sot-glp", "top_k", 0),
                ("sot-glp", "epsilon", -1.0),
                ("sot-glp", "n_local_prompts", 0),
                ("sot-glp", "local_factor", "2"),
                ("sot-glp", "branches", "none"),
                ("sot-glp", "matching", "greedy"),
                ("gallop", "scale_step", -1),
                ("gallop", "matching", "uniform"),
                ("locoop", "ood_weight", -0.1),
                ("locoop", "rank", 0),
                ("locoop", "rank", 1.1),
                ("tip-adapter", "cache_weight", -0.1),
                ("tip-adapter", "sharpness", 0),
                ("tip-adapter", "learn_keys", "some"),
                ("clip-adapter", "reduction", 0),
                ("clip-adapter", "mix", 1.1),
                ("clip-adapter", "mix", -0.1),
                ("linear-probe", "inverse_regularisation", 0),
            )
        ),
        ("sot-glp", "top_k", 17, "top_k = 17 exceeds the 16 patches"),
        ("sot-glp", "template", "a photo", "placeholder"),
    ],
)
def test_invalid_settings_are_refused_by_name(
    tiny_backbone: Backbone, kind: str, setting: str, value: Any, words: str
) -> None:
    model: Any = KINDS[kind]
    with pytest.raises(SotglpError, match=words):
        model(tiny_backbone, NAMES, **{setting: value})
