import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pretraining import run_folder as files
from pretraining.painted import pretrain as module
from pretraining.painted.pretrain import Pretraining, Recipe, pretrain
from sotglp.demo.task import contains_class
from sotglp.demo.world import NO_PART
from sotglp.errors import SotglpError

SMALL = Recipe(steps=50, batch_size=8, warm_up=5, single_parts=0.3, pool_size=6)
ONE_STEP = replace(SMALL, steps=1)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def losses(run, until):
    return [record["total"] for record in run.run(until)]


def test_fifty_steps_give_the_same_losses_in_one_run_and_in_a_resumed_one():
    whole, first, second = Pretraining(SMALL), Pretraining(SMALL), Pretraining(SMALL)
    expected = losses(whole, 50)
    before = losses(first, 25)
    state = first.state()
    kept = {name: value.clone() for name, value in state.items()}
    second.restore(state)
    losses(first, 27)  # neither the state nor the resumed run may depend on this
    assert_equal(state, kept)
    assert len(expected) == 50
    assert before + losses(second, 50) == expected
    assert_equal(whole.state(), second.state())
    assert expected[:2] != losses(Pretraining(replace(SMALL, seed=2)), 2)


def test_the_loss_falls():
    values = losses(Pretraining(replace(SMALL, steps=30, batch_size=16, single_parts=1.0)), 30)
    assert sum(values[-10:]) < 0.8 * sum(values[:10])


@pytest.mark.parametrize("step", [0, 60, 99])
def test_pretraining_never_shows_a_class(step):
    run = Pretraining(Recipe(steps=100, batch_size=4000, pool_size=12))
    run.step = step
    parts = run._draw(np.random.default_rng(step))
    assert not contains_class(parts).any()
    assert (parts[:, :, 0] != NO_PART).sum(axis=1).max() == (1 if step == 0 else 4)


def test_pretraining_would_show_classes_if_it_did_not_look(monkeypatch):
    monkeypatch.setattr(module, "contains_class", lambda parts: np.zeros(len(parts), dtype=bool))
    run = Pretraining(Recipe(steps=100, batch_size=4000, pool_size=12))
    run.step = 60
    assert contains_class(run._draw(np.random.default_rng(60))).any()


def test_every_step_has_pictures_of_its_own(monkeypatch):
    shown, real = [], module.pretraining_loss

    def watched(clip, heads, pictures, *others):
        shown.append({image.tobytes() for image in pictures.images})
        return real(clip, heads, pictures, *others)

    monkeypatch.setattr(module, "pretraining_loss", watched)
    losses(Pretraining(SMALL), 3)
    losses(Pretraining(replace(SMALL, seed=2)), 1)
    assert len(set.union(*shown)) == 4 * SMALL.batch_size


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
    assert_equal(*(load_file(tmp_path / name / "state.safetensors") for name in ("whole", "killed")))
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "curve.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 8]
    assert (tmp_path / "whole" / module.FILE).read_bytes() == (tmp_path / "killed" / module.FILE).read_bytes()


def test_a_run_killed_between_curve_and_state_keeps_its_curve(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    monkeypatch.setattr(module, "TEST_EVERY", 2)
    recipe, real, placed = replace(SMALL, steps=4), files.write_file, []

    def killed(path, write, *, force):
        placed.append(path.name)
        if placed.count("curve.jsonl") + placed.count("state.safetensors") == 4:
            raise KeyboardInterrupt
        real(path, write, force=force)

    monkeypatch.setattr(files, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path, recipe)
    monkeypatch.setattr(files, "write_file", real)
    assert int(load_file(tmp_path / "state.safetensors")["step"]) == 2
    pretrain(tmp_path, recipe)
    steps = [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    pretrain(folder, ONE_STEP)
    return folder


@pytest.fixture
def run_folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_a_finished_run_is_packed_again_and_no_more(run_folder):
    packed = (run_folder / module.FILE).read_bytes()
    (run_folder / module.FILE).unlink()
    before = (run_folder / "state.safetensors").read_bytes()
    pretrain(run_folder, ONE_STEP)
    assert (run_folder / module.FILE).read_bytes() == packed
    assert (run_folder / "state.safetensors").read_bytes() == before


def test_a_folder_of_another_recipe_is_refused(run_folder):
    with pytest.raises(SotglpError, match=r"another recipe \(steps, seed\)"):
        pretrain(run_folder, replace(ONE_STEP, steps=2, seed=9))
    noted = json.loads((run_folder / "recipe.json").read_text())
    (run_folder / "recipe.json").write_text(json.dumps(noted | {"dropout": 0.1}))
    with pytest.raises(SotglpError, match=r"another recipe \(dropout\)"):
        pretrain(run_folder, ONE_STEP)


@pytest.mark.parametrize("name", ["recipe.json", "curve.jsonl", "state.safetensors"])
@pytest.mark.parametrize("content", [b"[1]\n", b'{"step": 1}\n', b'{"step": \xff', b"\xff" * 100])
def test_a_damaged_file_is_refused_and_kept(run_folder, name, content):
    (run_folder / name).write_bytes(content)
    with pytest.raises(SotglpError, match=rf"{name}|another recipe"):
        pretrain(run_folder, ONE_STEP)
    assert (run_folder / name).read_bytes() == content


@pytest.mark.parametrize("name", ["recipe.json", "curve.jsonl"])
def test_a_state_without_its_other_files_is_refused(run_folder, name):
    (run_folder / name).unlink()
    with pytest.raises(SotglpError, match=name):
        pretrain(run_folder, ONE_STEP)
    assert not (run_folder / name).exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("adam.3.exp_avg"), "adam.3.exp_avg"),
        (lambda state: state.pop("clip.visual.proj"), "clip.visual.proj"),
        (lambda state: state.pop("step"), "step"),
        (lambda state: state.update({"step": torch.tensor([1, 2])}), "step"),
        (lambda state: state.update({"heads.of_patch.bias": torch.zeros(3)}), "heads.of_patch.bias"),
        (lambda state: state.update({"model.weight": torch.zeros(3)}), "model.weight"),
    ],
)
def test_a_foreign_state_is_refused(run_folder, change, told):
    path = run_folder / "state.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    with pytest.raises(SotglpError, match=rf"not a state of this run \(1 tensors .*{told}"):
        pretrain(run_folder, ONE_STEP)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SotglpError, match="can't be written"):
        pretrain(tmp_path / "out", ONE_STEP)
    assert (tmp_path / "out").read_text() == "mine"


def test_the_command_tells_in_a_sentence_what_it_refuses(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pretrain", "--out", str(run_folder), "--steps", "7"])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert exit_.value.code == 2
    assert re.fullmatch(r"pretrain: error: .* contains a run of another recipe .*\n", capsys.readouterr().err)
