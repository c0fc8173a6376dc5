"""The cells of a suite: one method on one dataset with one number of shots and one seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sotglp.benchmark.results import Cell
from sotglp.benchmark.suite import Suite
from sotglp.settings import Settings, TrainConfig

ANY = 0
"""Shots and seed of a cell that depends on neither."""


@dataclass(frozen=True)
class Plan:
    """A cell, and the settings of its model and training."""

    cell: Cell
    model: Settings
    training: TrainConfig


def plan_cells(suite: Suite) -> list[Plan]:
    """Return all cells of a suite, dataset by dataset; a method without shots has one cell per dataset."""
    plans = []
    for dataset in suite.datasets:
        preset = suite.preset(dataset)
        for label, choice in suite.methods.items():
            method = suite.method(label)
            for shots in suite.shots if method.uses_shots else (ANY,):
                for seed in suite.seeds if method.uses_shots else (ANY,):
                    drawn = {"shots": shots or 1, "seed": seed or suite.seeds[0]}
                    model, training = method.settings_on(preset, {**choice.settings, **drawn})
                    cell = Cell(
                        suite=suite.name,
                        protocol=suite.protocol,
                        dataset=dataset,
                        method=label,
                        shots=shots,
                        seed=seed,
                    )
                    plans.append(Plan(cell, model, training))
    return plans


def cell_key(plan: Plan, backbone: dict[str, Any], data_digest: str) -> str:
    """Return a digest of everything that a result depends on: settings, the weights and the digest of the images."""
    inputs = {
        "cell": plan.cell.model_dump(exclude={"suite"}),
        "model": plan.model.model_dump(),
        "training": plan.training.model_dump(exclude={"workers"}),
        "backbone": backbone,
        "material": data_digest,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
