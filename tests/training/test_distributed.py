from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sotglp import Backbone
from sotglp.features.distributed import Processes
from sotglp.images.image_set import ImageSet
from sotglp.methods.method import find_method
from sotglp.settings import Preset
from sotglp.training.fit import adapt
from support.samples import make_class_folders, tiny_clip

# Of 9 images in 3 classes: four processes are more than classes, and three more than the images of the smaller batches.
BATCHES: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 0.02, "shots": None}
SMALL: dict[str, Any] = {"epochs": 1, "batch_size": 2}
RUNS: list[dict[str, Any]] = [
    {"views": 2},
    {"views": 2, "micro_batch": 1, "cached": True},
    {"views": 0, **SMALL},
    {"augment": False, "learn_projection": False, "cached": True},
    {"branches": "global", **SMALL},
    {"branches": "local"},
    {"method": "clip-adapter", **SMALL, "batch_size": 1},
]


def test_one_process_has_all_the_work() -> None:
    processes = Processes(torch.device("cpu"))
    assert (processes.index, processes.count, processes.is_first) == (0, 1, True)
    assert processes.share(range(5)) == [0, 1, 2, 3, 4]
    tensor = torch.arange(3.0)
    processes.add_up([tensor])
    processes.wait()
    assert tensor.tolist() == [0, 1, 2]


def fit(root: Path, run: dict[str, Any], cache: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    changes = {**BATCHES, **run}
    method, cached = find_method(changes.pop("method", "sot-glp")), changes.pop("cached", False)
    images = ImageSet.from_path(root / "train")
    settings = method.settings_on(Preset(), changes)
    fitted = adapt(Backbone.from_open_clip(tiny_clip()), images, *settings, cache_dir=cache if cached else None)
    return fitted.history, fitted.model.kept_tensors()


def work(root: Path) -> None:
    """What each of several processes runs: fit all runs, and write down what came out."""
    processes = Processes(torch.device("cpu"))
    total = torch.tensor([float(processes.index + 1), 10.0])
    processes.add_up([total])
    histories = []
    for number, run in enumerate(RUNS):
        history, tensors = fit(root, run, root / f"cache{number}")
        histories.append(history)
        safetensors.torch.save_file(tensors, root / f"learned{number}.{processes.index}")
    record = {"histories": histories, "share": processes.share(range(7)), "total": total.tolist()}
    (root / f"record{processes.index}.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[dict[str, float]], dict[str, Any]]]:
    """What a single process learns in each run."""
    root = tmp_path_factory.mktemp("alone")
    make_class_folders(root / "train", per_class=3)
    return [fit(root, run, root / f"cache{number}") for number, run in enumerate(RUNS)]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_learn_what_one_does(
    tmp_path: Path, count: int, alone: list[tuple[list[dict[str, float]], dict[str, Any]]]
) -> None:
    make_class_folders(tmp_path / "train", per_class=3)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = f"import sys; sys.path[:0] = {paths}; from pathlib import Path; "
    script += f"import test_distributed; test_distributed.work(Path({str(tmp_path)!r}))"
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr

    records = [json.loads((tmp_path / f"record{index}.json").read_text()) for index in range(count)]
    assert [record["share"] for record in records] == [list(range(7))[index::count] for index in range(count)]
    assert [record["total"] for record in records] == [[count * (count + 1) / 2, 10.0 * count]] * count
    for number, (history, learned) in enumerate(alone):
        assert all(record["histories"][number] == records[0]["histories"][number] for record in records)
        for found, expected in zip(records[0]["histories"][number], history, strict=True):
            for name in ("loss", "loss_global", "loss_local", "accuracy"):
                assert found[name] == pytest.approx(expected[name], rel=1e-5), (RUNS[number], name)
        tensors = [safetensors.torch.load_file(tmp_path / f"learned{number}.{index}") for index in range(count)]
        for name, expected in learned.items():
            assert all(torch.equal(own[name], tensors[0][name]) for own in tensors)
            torch.testing.assert_close(tensors[0][name], expected, rtol=1e-4, atol=1e-6)
        if RUNS[number].get("cached"):
            n_views = RUNS[number].get("views", 1)
            # One more of each image, as the memory of the shots has it.
            assert len(list((tmp_path / f"cache{number}").rglob("*.safetensors"))) == 9 * (n_views + 1)
