from __future__ import annotations

from pathlib import Path

import yaml

from sotglp.benchmark.cells import cell_key, plan_cells
from sotglp.benchmark.suite import Suite, load_suite
from sotglp.settings import ModelConfig, load_preset


def suite_of(tmp_path: Path, **values: object) -> Suite:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"datasets": ["dtd", "own"], "methods": ["zero-shot", "coop"], **values}))
    return load_suite(str(path))


def test_there_is_one_cell_for_each_combination_and_one_a_dataset_without_shots(tmp_path: Path) -> None:
    plans = plan_cells(suite_of(tmp_path, shots=[1, 4], seeds=[1, 2, 3]))
    cells = [(plan.cell.dataset, plan.cell.method, plan.cell.shots, plan.cell.seed) for plan in plans]
    assert len(set(cells)) == len(cells) == 2 * (1 + 2 * 3)
    assert cells[0] == ("dtd", "zero-shot", 0, 0)
    assert [plan.cell.dataset for plan in plans] == ["dtd"] * 7 + ["own"] * 7
    for plan in plans:
        if plan.cell.method == "coop":
            assert (plan.training.shots, plan.training.seed) == (plan.cell.shots, plan.cell.seed)


def test_settings_come_from_preset_then_suite_then_method_then_its_entry(tmp_path: Path) -> None:
    suite = suite_of(
        tmp_path,
        settings={"epochs": 7, "batch_size": 5},
        methods={"tip-adapter-f": {}, "coop": {"batch_size": 9}},
        shots=[1],
        seeds=[1],
    )
    plans = {(plan.cell.dataset, plan.cell.method): plan for plan in plan_cells(suite)}
    assert plans["dtd", "coop"].training.learning_rate == load_preset("dtd").training.learning_rate == 0.002
    assert plans["dtd", "coop"].training.epochs == 7
    assert plans["dtd", "coop"].training.batch_size == 9
    assert plans["dtd", "tip-adapter-f"].training.batch_size == 5
    # Epochs, rate and rule of a step are what makes Tip-Adapter-F that method.
    assert plans["dtd", "tip-adapter-f"].training.epochs == 20
    assert plans["dtd", "tip-adapter-f"].training.optimizer == "adamw"


def test_the_published_preset_of_eurosat_reaches_its_cells() -> None:
    plans = [plan for plan in plan_cells(load_suite("few-shot")) if plan.cell.dataset == "eurosat"]
    plan = next(plan for plan in plans if plan.cell.method == "sot-glp")
    assert isinstance(plan.model, ModelConfig)
    assert (plan.training.epochs, plan.training.batch_size, plan.training.learning_rate) == (200, 10, 0.001)
    assert (plan.model.n_local_prompts, plan.model.n_global_prompts, plan.model.top_k) == (4, 3, 10)
    zero_shot = next(plan for plan in plans if plan.cell.method == "zero-shot")
    assert zero_shot.model.model_dump()["zero_shot_template"] == "a centered satellite photo of {}."


def test_a_key_changes_with_all_that_a_result_depends_on_and_nothing_else(tmp_path: Path) -> None:
    backbone = {"name": "tiny", "fingerprint": "sha256:1"}
    plan = plan_cells(suite_of(tmp_path))[1]
    key = cell_key(plan, backbone, "images")
    renamed = plan_cells(suite_of(tmp_path, name="another"))[1]
    assert cell_key(renamed, backbone, "images") == key
    busier = plan_cells(suite_of(tmp_path, settings={"workers": 2}))[1]
    assert cell_key(busier, backbone, "images") == key
    longer = plan_cells(suite_of(tmp_path, settings={"epochs": 3}))[1]
    others = [
        cell_key(longer, backbone, "images"),
        cell_key(plan, {**backbone, "fingerprint": "sha256:2"}, "images"),
        cell_key(plan, backbone, "other images"),
        cell_key(plan_cells(suite_of(tmp_path))[2], backbone, "images"),
    ]
    assert len({key, *others}) == 5
