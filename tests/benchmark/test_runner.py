from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sotglp import SotglpError
from sotglp.benchmark.results import Result, read
from sotglp.benchmark.runner import RESULTS_FILE, Run, RunConfig, run_suite
from sotglp.benchmark.suite import load_suite
from sotglp.engines import EngineConfig
from support.samples import make_class_folders

SUITE: dict[str, Any] = {
    "backbone": {"name": "tiny", "pretrained": "auto"},
    "datasets": {"own": {"train": "train", "test": "test"}},
    "methods": ["zero-shot", "linear-probe", "coop"],
    "shots": [2],
    "seeds": [1, 2],
    "settings": {"epochs": 2, "augment": False},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_class_folders(root / "train", per_class=4, seed=0)
    make_class_folders(root / "test", per_class=3, seed=1)
    return root


def config(root: Path, **changes: Any) -> RunConfig:
    (root / "s.yaml").write_text(yaml.safe_dump({**SUITE, **changes}))
    return RunConfig(load_suite(str(root / "s.yaml")), root, root / "cache")


def measured(results: list[Result]) -> dict[str, Any]:
    return {result.key: result.metrics for result in results}


@pytest.fixture(scope="module")
def whole(root: Path) -> Run:
    return run_suite(config(root), root / "whole")


def test_finished_cells_are_skipped_and_new_ones_added(root: Path, whole: Run, tmp_path: Path) -> None:
    assert (len(whole.results), whole.n_before, whole.failed) == (1 + 2 + 2, 0, {})
    out = shutil.copytree(root / "whole", tmp_path / "out")
    assert read(out / RESULTS_FILE) == whole.results
    before = (out / RESULTS_FILE).read_bytes()
    again = run_suite(config(root), out)
    assert (again.n_before, again.results) == (5, whole.results)
    assert (out / RESULTS_FILE).read_bytes() == before
    more = run_suite(config(root, methods=["linear-probe"], seeds=[1, 2, 3, 4]), out, engine=EngineConfig(n_workers=2))
    assert (len(more.results), more.n_before) == (4, 2)
    assert measured(more.results[:2]).items() <= measured(whole.results).items()
    last = more.results[-1]
    assert last.backbone["name"] == "tiny"
    assert last.backbone["fingerprint"].startswith("sha256:")
    assert last.versions["torch"]
    assert last.settings["training"]["epochs"] == 2
    assert last.cost.threads >= 1


def test_a_killed_run_resumes_to_the_same_numbers(root: Path, whole: Run, tmp_path: Path) -> None:
    path = tmp_path / RESULTS_FILE
    lines = (root / "whole" / RESULTS_FILE).read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][: len(lines[2]) // 2])
    with pytest.warns(match="ends in an incomplete line"):
        resumed = run_suite(config(root), tmp_path)
    assert resumed.n_before == 2
    assert measured(resumed.results) == measured(whole.results) == measured(read(path))


def test_a_cell_that_fails_leaves_the_others_alone(root: Path, tmp_path: Path) -> None:
    changes = {"methods": {"zero-shot": {}, "coop": {"learning_rate": 1e30}}, "seeds": [1]}
    run = run_suite(config(root, **changes), tmp_path)
    assert [result.cell.method for result in run.results] == ["zero-shot"]
    assert list(run.failed) == ["own, coop, 2 shots, seed 1"]
    assert "training diverged at epoch" in run.failed["own, coop, 2 shots, seed 1"]


def test_images_that_are_not_there_are_named_before_anything_runs(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SotglpError, match="nowhere does not exist"):
        run_suite(config(root, datasets={"own": {"train": "train", "test": "nowhere"}}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
