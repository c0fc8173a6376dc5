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
from sotglp.settings import ModelConfig, TrainConfig
from sotglp.training.fit import adapt
from support.samples import make_class_folders, tiny_clip

# Ten steps, each of an odd number of images.
CONFIG: dict[str, Any] = {"epochs": 5, "batch_size": 7, "learning_rate": 0.02, "shots": None}


def test_one_process_has_all_the_work() -> None:
    processes = Processes(torch.device("cpu"))
    assert (processes.index, processes.count, processes.is_first) == (0, 1, True)
    assert processes.share(range(5)) == [0, 1, 2, 3, 4]
    tensor = torch.arange(3.0)
    processes.add_up([tensor])
    processes.wait()
    assert tensor.tolist() == [0, 1, 2]


def fit(root: Path, config: dict[str, Any], cache_dir: Path | None) -> tuple[list[dict[str, float]], dict[str, Any]]:
    images = ImageSet.from_path(root / "train")
    fitted = adapt(
        Backbone.from_open_clip(tiny_clip()),
        images,
        ModelConfig(**{name: config.pop(name) for name in ("learn_projection", "branches") if name in config}),
        TrainConfig(**{**CONFIG, **config}),
        cache_dir=cache_dir,
    )
    return fitted.history, fitted.model.kept_tensors()


def work(root: Path) -> None:
    """What each of several processes runs: fit, and write down what came out."""
    task = json.loads((root / "task.json").read_text())
    history, tensors = fit(root, task["config"], Path(task["cache"]) if task["cache"] else None)
    processes = Processes(torch.device("cpu"))
    total = torch.tensor([float(processes.index + 1), 10.0])
    processes.add_up([total])
    said = {"history": history, "share": processes.share(range(7)), "total": total.tolist()}
    (root / f"said{processes.index}.json").write_text(json.dumps(said))
    safetensors.torch.save_file(tensors, root / f"learned{processes.index}")


@pytest.mark.parametrize(
    ("config", "cached"),
    [
        ({"views": 2}, False),
        ({"views": 2, "micro_batch": 2}, True),
        ({"views": 0}, False),
        ({"augment": False, "learn_projection": False}, True),
        ({"views": 2, "branches": "global"}, False),
        ({"views": 2, "branches": "local"}, False),
    ],
    ids=str,
)
def test_two_processes_learn_what_one_learns(tmp_path: Path, config: dict[str, Any], cached: bool) -> None:
    make_class_folders(tmp_path / "train", per_class=5)
    cache = tmp_path / "cache" if cached else None
    (tmp_path / "task.json").write_text(json.dumps({"config": config, "cache": cache and str(cache)}))
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = f"import sys; sys.path[:0] = {places}; from pathlib import Path; "
    script += f"import test_distributed; test_distributed.work(Path({str(tmp_path)!r}))"
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr

    history, learned = fit(tmp_path, dict(config), None)
    said = [json.loads((tmp_path / f"said{index}.json").read_text()) for index in range(2)]
    assert [one["share"] for one in said] == [[0, 2, 4, 6], [1, 3, 5]]
    assert [one["total"] for one in said] == [[3.0, 20.0]] * 2
    assert said[0]["history"] == said[1]["history"]
    for ours, alone in zip(said[0]["history"], history, strict=True):
        for name in ("loss", "loss_global", "loss_local", "accuracy"):
            assert ours[name] == pytest.approx(alone[name], rel=1e-5), name
    both = [safetensors.torch.load_file(tmp_path / f"learned{index}") for index in range(2)]
    for name, alone_values in learned.items():
        assert torch.equal(both[0][name], both[1][name])
        torch.testing.assert_close(both[0][name], alone_values, rtol=1e-4, atol=1e-6)
    if cache:
        n_views = TrainConfig(**CONFIG).views if config.get("augment", True) else 1
        # One more of each image, as the memory of the shots has it.
        assert len(list(cache.rglob("*.safetensors"))) == 15 * (n_views + 1)
