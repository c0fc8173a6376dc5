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
    """A cell and the settings that it runs with.

    Attributes
    ----------
    cell : Cell
        Which one.
    model : Settings
        Settings of the method's model.
    training : TrainConfig
        Settings of its training.
    """

    cell: Cell
    model: Settings
    training: TrainConfig


def plan_cells(suite: Suite) -> list[Plan]:
    """All cells of a suite, a dataset after the other; a method that uses no shots has one cell a dataset.

    Raises
    ------
    SotglpError
        If a setting in the suite can't be used.
    """
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


def cell_key(plan: Plan, backbone: dict[str, Any], material_digest: str) -> str:
    """A digest of everything that a cell's result depends on: its settings, the weights, which images there are.

    Parameters
    ----------
    plan : Plan
        The cell.
    backbone : dict
        Name, fingerprint and what else is told of the backbone.
    material_digest : str
        From :meth:`sotglp.benchmark.material.Material.digest`.
    """
    told = {
        "cell": plan.cell.model_dump(exclude={"suite"}),
        "model": plan.model.model_dump(),
        "training": plan.training.model_dump(exclude={"workers"}),
        "backbone": backbone,
        "material": material_digest,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
