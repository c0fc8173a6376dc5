import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sotglp.demo import pretrain as module
from sotglp.demo.pretrain import Pretraining, Recipe, pretrain
from sotglp.errors import SotglpError

SMALL = Recipe(steps=50, batch_size=8, warm_up=5, single_parts=0.3, pool_size=6)


def losses(run, until):
    return [record["total"] for record in run.run(until)]


def test_the_same_seed_gives_the_same_fifty_losses():
    one, again = losses(Pretraining(SMALL), 50), losses(Pretraining(SMALL), 50)
    assert len(one) == 50
    assert one == again
    assert one != losses(Pretraining(replace(SMALL, seed=2)), 50)


def test_the_loss_falls():
    told = losses(Pretraining(replace(SMALL, steps=60, batch_size=32, single_parts=1.0)), 60)
    assert sum(told[-10:]) < 0.75 * sum(told[:10])


def test_a_run_goes_on_where_another_stopped():
    whole, first, second = Pretraining(SMALL), Pretraining(SMALL), Pretraining(SMALL)
    expected = losses(whole, 12)
    told = losses(first, 6)
    second.restore(first.state())
    assert told + losses(second, 12) == expected
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_a_killed_run_ends_as_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_EVERY", 3)
    monkeypatch.setattr(module, "TEST_EVERY", 3)
    recipe = replace(SMALL, steps=8)
    pretrain(tmp_path / "whole", recipe)
    real, calls = module.pretraining_loss, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "pretraining_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path / "killed", recipe)
    monkeypatch.setattr(module, "pretraining_loss", real)
    pretrain(tmp_path / "killed", recipe)
    one, other = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "curve.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 8]
    assert (tmp_path / "whole" / module.FILE).read_bytes() == (tmp_path / "killed" / module.FILE).read_bytes()


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    recipe = replace(SMALL, steps=1)
    pretrain(tmp_path, recipe)
    with pytest.raises(SotglpError, match=r"another recipe.*steps"):
        pretrain(tmp_path, replace(recipe, steps=2))


def test_the_command_has_help():
    said = subprocess.run(
        [sys.executable, "-m", "sotglp.demo.pretrain", "--help"], capture_output=True, text=True, check=True
    )
    assert "--steps" in said.stdout
