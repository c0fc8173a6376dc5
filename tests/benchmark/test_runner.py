from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sotglp import SotglpError
from sotglp.benchmark.results import Result, read
from sotglp.benchmark.runner import RESULTS_FILE, Setting, run_suite
from sotglp.benchmark.suite import load_suite
from support.samples import make_class_folders

SUITE: dict[str, Any] = {
    "backbone": {"name": "tiny", "pretrained": "auto"},
    "datasets": {"own": {"train": "train", "test": "test"}},
    "methods": ["zero-shot", "linear-probe", "coop"],
    "shots": [2],
    "seeds": [1, 2],
    "settings": {"epochs": 2, "augment": False},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_class_folders(tmp_path / "train", per_class=4, seed=0)
    make_class_folders(tmp_path / "test", per_class=3, seed=1)
    return tmp_path


def setting(root: Path, **changes: Any) -> Setting:
    (root / "s.yaml").write_text(yaml.safe_dump({**SUITE, **changes}))
    return Setting(load_suite(str(root / "s.yaml")), root, root / "cache")


def measured(results: list[Result]) -> dict[str, Any]:
    return {result.key: result.metrics for result in results}


def test_finished_cells_are_skipped_and_new_ones_added(root: Path) -> None:
    out = root / "out"
    first = run_suite(setting(root), out)
    assert (len(first.results), first.n_before, first.failed) == (1 + 2 + 2, 0, {})
    assert read(out / RESULTS_FILE) == first.results
    before = (out / RESULTS_FILE).read_bytes()
    again = run_suite(setting(root), out)
    assert (again.n_before, again.results) == (5, first.results)
    assert (out / RESULTS_FILE).read_bytes() == before
    more = run_suite(setting(root, seeds=[1, 2, 3]), out, n_processes=2)
    assert (len(more.results), more.n_before) == (7, 5)
    assert measured(first.results).items() <= measured(more.results).items()
    told = more.results[-1]
    assert told.backbone["name"] == "tiny"
    assert told.backbone["fingerprint"].startswith("sha256:")
    assert told.versions["torch"]
    assert told.settings["training"]["epochs"] == 2
    assert told.cost.threads >= 1


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(root: Path) -> None:
    whole = run_suite(setting(root), root / "whole")
    path = root / "killed" / RESULTS_FILE
    path.parent.mkdir()
    lines = (root / "whole" / RESULTS_FILE).read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][: len(lines[2]) // 2])
    with pytest.warns(match="ends in half a line"):
        resumed = run_suite(setting(root), root / "killed")
    assert resumed.n_before == 2
    assert measured(resumed.results) == measured(whole.results)
    assert measured(read(path)) == measured(whole.results)


def test_a_cell_that_fails_leaves_the_others_alone(root: Path) -> None:
    changes = {"methods": {"zero-shot": {}, "coop": {"learning_rate": 1e30}}, "seeds": [1]}
    run = run_suite(setting(root, **changes), root / "out")
    assert [result.cell.method for result in run.results] == ["zero-shot"]
    assert list(run.failed) == ["own, coop, 2 shots, seed 1"]
    assert "training stopped at epoch" in run.failed["own, coop, 2 shots, seed 1"]


def test_images_that_are_not_there_are_named_before_anything_runs(root: Path) -> None:
    with pytest.raises(SotglpError, match="nowhere does not exist"):
        run_suite(setting(root, datasets={"own": {"train": "train", "test": "nowhere"}}), root / "out")
    assert not (root / "out").exists()
