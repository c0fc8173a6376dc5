from __future__ import annotations

from typing import Any

import pytest

from sotglp import Backbone, SotglpError
from sotglp.methods.registry import KINDS
from support.prompt_models import NAMES

INVALID: dict[str, list[tuple[str, Any]]] = {
    "sot-glp": [
        *(("local_contexts", "some"), ("top_k", 0), ("epsilon", -1.0), ("n_local_prompts", 0), ("local_factor", "2")),
        *(("branches", "none"), ("matching", "greedy")),
    ],
    "gallop": [("scale_step", -1), ("matching", "uniform")],
    "locoop": [("ood_weight", -0.1), ("rank", 0), ("rank", 1.1)],
    "tip-adapter": [("cache_weight", -0.1), ("sharpness", 0), ("learn_keys", "some")],
    "clip-adapter": [("reduction", 0), ("mix", 1.1), ("mix", -0.1)],
    "gda": [("fusion_weight", -0.1)],
    "proker": [("sharpness", 0), ("ridge", 0)],
    "pool": [("sharpness", 0), ("fusion_weight", -0.1), ("inverse_regularisation", 0)],
    "lp++": [("iterations", -1)],
    "task-res": [("residual_scale", 0)],
    "clap": [("constrained", "some")],
    "clip-lora": [("rank", 0), ("alpha", 0), ("input_dropout", 1)],
    "linear-probe": [("inverse_regularisation", 0)],
    "zero-shot": [("ensemble", "perhaps")],
}


@pytest.mark.parametrize(
    ("kind", "setting", "value", "words"),
    [
        *((kind, name, value, f"{name} = {value!r}") for kind, own in INVALID.items() for name, value in own),
        ("sot-glp", "top_k", 17, "top_k = 17 exceeds the 16 patches"),
        ("sot-glp", "template", "a photo", "placeholder"),
    ],
)
def test_invalid_settings_are_named(tiny_backbone: Backbone, kind: str, setting: str, value: Any, words: str) -> None:
    model: Any = KINDS[kind]
    with pytest.raises(SotglpError, match=words):
        model(tiny_backbone, NAMES, **{setting: value})
