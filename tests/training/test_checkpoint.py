from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.files.tensors import read_tensors, write_tensors
from sotglp.images.image_set import ImageSet
from sotglp.settings import TrainConfig
from sotglp.training.checkpoint import Checkpoint, _checksum, run_identity

HISTORY = [{"epoch": 1, "loss": 0.5, "accuracy": 0.25}]


def parts(backbone: Backbone) -> tuple[SOTGLP, torch.optim.Optimizer, torch.amp.GradScaler]:
    model = SOTGLP(backbone, ["cat", "dog"], n_local_prompts=2, top_k=5)
    optimizer = torch.optim.SGD(model.learned, lr=0.1, momentum=0.9)
    return model, optimizer, torch.amp.GradScaler("cpu", enabled=False)


@pytest.fixture
def kept(tiny_backbone: Backbone, tmp_path: Path) -> Checkpoint:
    """A checkpoint after one step of a run."""
    model, optimizer, scaler = parts(tiny_backbone)
    model.loss(torch.randn(2, 3, 32, 32), torch.tensor([0, 1])).total.backward()
    optimizer.step()
    checkpoint = Checkpoint(tmp_path / "m.checkpoint", "this run")
    checkpoint.write(model, optimizer, scaler, HISTORY)
    return checkpoint


def test_a_state_comes_back(kept: Checkpoint, tiny_backbone: Backbone) -> None:
    model, optimizer, scaler = parts(tiny_backbone)
    assert kept.read(model, optimizer, scaler) == HISTORY
    tensors, _ = read_tensors(kept.path, "checkpoint")
    assert torch.equal(model.global_prompts, tensors["global_prompts"])
    momentum = optimizer.state[model.global_prompts]["momentum_buffer"]
    assert torch.equal(momentum, tensors["optimizer.momentum_buffer.global_prompts"])


@pytest.mark.parametrize(
    ("record", "tensors", "words"),
    [
        ({"identity": "another run"}, {}, "belongs to a run with other settings"),
        ({"history": [{"epoch": 1}]}, {}, "is damaged .history.: start again with --force"),
        ({"history": 3}, {}, "is damaged"),
        ({"loss_scale": "much"}, {}, "is damaged"),
        ({"loss_scale": None}, {}, "is damaged"),
        ({}, {"local_prompts": None}, "is damaged .'local_prompts'."),
        ({}, {"local_prompts": torch.zeros(())}, "its local_prompts has another shape than the model's"),
        ({}, {"global_prompts": torch.tensor(float("nan"))}, "something else than finite numbers"),
        ({}, {"optimizer.momentum_buffer.global_prompts": torch.zeros(3)}, "global_prompts has another shape"),
    ],
    ids=str,
)
def test_misfits_are_refused(
    kept: Checkpoint, tiny_backbone: Backbone, record: dict[str, Any], tensors: dict[str, Any], words: str
) -> None:
    held, told = read_tensors(kept.path, "checkpoint")
    whole = {name: value for name, value in (held | tensors).items() if value is not None}
    told |= record
    # Forged with care: the checksum fits.
    del told["sha256"]
    write_tensors(kept.path, whole, told | {"sha256": _checksum(whole, told)}, force=True)
    with pytest.raises(SotglpError, match=words):
        kept.read(*parts(tiny_backbone))


def test_a_run_is_identified_by_the_content_of_its_images(tiny_backbone: Backbone, images: ImageSet) -> None:
    model = SOTGLP(tiny_backbone, images.classes, n_local_prompts=2, top_k=5)
    first = run_identity(model, images, TrainConfig())
    assert run_identity(model, images, TrainConfig(workers=2)) == first
    labels = images.labels or ()
    assert run_identity(model, ImageSet(images.images, labels[::-1]), TrainConfig()) != first
    changed, other = Path(str(images.images[0])), Path(str(images.images[-1]))
    changed.write_bytes(other.read_bytes())
    assert run_identity(model, images, TrainConfig()) != first
