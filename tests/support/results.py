"""Results of benchmark cells."""

from __future__ import annotations

from typing import Any

from sotglp.benchmark.results import Result

BACKBONE = {
    "name": "tiny",
    "pretrained": "embedded",
    "fingerprint": "sha256:0",
    "image_size": [64, 64],
    "patch_attention": "value",
}
VIT = {"name": "ViT-B-16", "pretrained": "openai", "fingerprint": "sha256:1", "image_size": [224, 224]}


def made(
    method: str = "sot-glp",
    dataset: str = "birds",
    shots: int = 16,
    seed: int = 1,
    accuracy: float = 0.5,
    *,
    suite: str = "made-up",
    protocol: str = "few-shot",
    backbone: dict[str, Any] = BACKBONE,
    key: str | None = None,
    cost: dict[str, Any] | None = None,
    **metrics: Any,
) -> Result:
    """A result of a cell; what is not given is the same in all."""
    measured = {"accuracy": accuracy, "accuracy_global": 0.25, "accuracy_local": 0.125, "n": 40}
    spent = {"fit_seconds": 2.0, "evaluate_seconds": 1.0, "peak_memory_mb": 512.0, "threads": 1}
    cell = {"suite": suite, "protocol": protocol, "dataset": dataset, "method": method, "shots": shots, "seed": seed}
    return Result.model_validate(
        {
            "key": key or f"{suite} {protocol} {dataset} {method} {shots} {seed} {backbone['name']}",
            "cell": cell,
            "metrics": {**measured, **metrics},
            "cost": {**spent, **(cost or {})},
            "backbone": backbone,
            "settings": {"model": {}, "training": {}},
            "versions": {"sotglp": "0.1.0"},
            "finished": "2026-11-24T19:00:00Z",
        }
    )
