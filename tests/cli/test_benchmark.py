from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command import Run, kill_when, sotglp
from support.published_settings import PUBLISHED
from support.samples import make_class_folders

SUITE: dict[str, Any] = {
    "backbone": {"name": "tiny", "pretrained": "auto"},
    "datasets": {"own": {"train": "train", "test": "test"}},
    "methods": ["zero-shot", "linear-probe", "coop", "sot-glp"],
    "shots": [1, 2],
    "seeds": [1, 2],
    "settings": {"epochs": 3, "augment": False},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_class_folders(tmp_path / "train", per_class=4, seed=0)
    make_class_folders(tmp_path / "test", per_class=3, seed=1)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    return tmp_path


def arguments(root: Path, out: str) -> list[object]:
    return ["benchmark", root / "suite.yaml", "--root", root, "--out", root / out, "--cache-dir", root / "cache"]


def measured(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["key"]: {key: line[key] for key in ("cell", "metrics", "settings")} for line in lines}


def test_a_run_that_was_killed_resumes_to_the_same_table(root: Path) -> None:
    sotglp(*arguments(root, "whole"))
    whole = measured(root / "whole" / "results.jsonl")
    assert len(whole) == 1 + 3 * 2 * 2

    results = root / "killed" / "results.jsonl"
    # The first process alone: the others must notice.
    session = kill_when(lambda: results.exists() and results.read_bytes().count(b"\n") >= 3, *arguments(root, "killed"))
    before = results.read_bytes().count(b"\n")
    assert 3 <= before < len(whole)
    deadline = time.monotonic() + 60
    while _alive(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(session)

    done = sotglp(*arguments(root, "killed"), "--json", "-")
    result = json.loads(done.stdout)
    assert result["n_before"] == before
    assert len(result["results"]) == len(whole)
    assert measured(results) == whole


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_another_backbone_in_place_of_the_suites(output_of: Run) -> None:
    def result(*options: str) -> dict[str, Any]:
        done = output_of("benchmark", "few-shot", "--dry-run", "--json", "-", *options)
        backbone: dict[str, Any] = json.loads(done)["suite"]["backbone"]
        return {key: backbone[key] for key in ("name", "pretrained")}

    assert result() == {"name": "ViT-B-16", "pretrained": "openai"}
    assert result("--backbone", "tiny") == {"name": "tiny", "pretrained": "auto"}
    assert result("--pretrained", "laion2b_s34b_b88k") == {"name": "ViT-B-16", "pretrained": "laion2b_s34b_b88k"}
    assert result("--backbone", "RN50", "--pretrained", "none") == {"name": "RN50", "pretrained": "none"}


def test_a_failed_cell_is_listed_and_ends_with_code_1(root: Path) -> None:
    methods = {"coop": {"learning_rate": 1e30}, "zero-shot": {}}
    (root / "suite.yaml").write_text(yaml.safe_dump({**SUITE, "methods": methods, "shots": [1], "seeds": [1]}))
    done = sotglp(*arguments(root, "out"), check=False)
    assert done.returncode == 1
    assert "failed: own, coop, 1 shot, seed 1: training" in done.stdout
    assert "1 of 2 cells" in done.stdout


def test_a_dry_run_prints_the_published_settings(output_of: Run) -> None:
    result = json.loads(output_of("benchmark", "few-shot", "--dry-run", "--json", "-"))
    n_trained = len(result["suite"]["methods"]) - 2  # zero-shot methods have one cell for each dataset
    assert len(result["cells"]) == 11 * (2 + n_trained * 5 * 3)
    seen = {}
    for cell in result["cells"]:
        if cell["cell"]["method"] == "sot-glp":
            training, model = cell["settings"]["training"], cell["settings"]["model"]
            numbers = (training["epochs"], training["batch_size"], training["learning_rate"], model["n_local_prompts"])
            seen[cell["cell"]["dataset"]] = numbers
            assert (model["top_k"], model["n_global_prompts"], training["momentum"]) == (10, 3, 0.9)
            assert (training["weight_decay"], training["views"], training["draw"]) == (0.01, 0, "published")
    assert seen == {name: published[:4] for name, published in PUBLISHED.items()}
    templates = {
        cell["cell"]["dataset"]: cell["settings"]["model"]["zero_shot_template"]
        for cell in result["cells"]
        if cell["cell"]["method"] == "zero-shot"
    }
    assert templates == {name: published[4] for name, published in PUBLISHED.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["benchmark", "few-shots", "--dry-run"], "there is no suite 'few-shots'"),
        (["benchmark", "few-shot"], "there is no folder for the results: give --out DIR"),
        (["benchmark", "few-shot", "--out", "o", "--root", "/nowhere"], "/nowhere"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: list[str], message: str, error_of: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sotglp.benchmark.runner.Backbone.load", lambda *_, **__: pytest.fail("loaded too early"))
    assert message in error_of(*change)


def test_info_lists_suites_and_methods(output_of: Run) -> None:
    assert "few-shot" in output_of("info", "--suites").splitlines()
    assert "arXiv 2111.03930" in output_of("info", "--methods")
    assert json.loads(output_of("info", "--methods", "--json", "-"))["methods"]["plot"]["title"] == "PLOT"


def test_fit_takes_any_method(root: Path) -> None:
    out = root / "tip.safetensors"
    done = sotglp("fit", root / "train", "--out", out, "--backbone", "tiny", "--method", "tip-adapter", "--shots", 2)
    assert done.stdout == f"{out}: 3 classes from 6 images\n"
    result = json.loads(sotglp("evaluate", out, root / "test", "--json", "-").stdout)
    assert 0 <= result["accuracy"] <= 1
    assert result["n"] == 9


def test_methods_shots_and_seeds_in_place_of_the_suites(output_of: Run, error_of: Run) -> None:
    command = ["benchmark", "few-shot", "--dry-run"]
    chosen = ["--methods", "gda,sot-glp", "--shots", "2,4", "--seeds", "7"]
    cells = [one["cell"] for one in json.loads(output_of(*command, *chosen, "--json", "-"))["cells"]]
    assert {cell["method"] for cell in cells} == {"gda", "sot-glp"}
    assert {cell["shots"] for cell in cells} == {2, 4}
    assert {cell["seed"] for cell in cells} == {7}
    assert "did you mean coop" in error_of(*command, "--methods", "co-op")
    for bad in ("0", "1,x", "", "-1"):
        assert "whole numbers from 1" in error_of(*command, "--shots", bad)
