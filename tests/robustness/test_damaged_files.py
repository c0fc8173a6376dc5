"""Damaged cache entries are computed again, and a damaged checkpoint is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sotglp import SotglpError
from sotglp.training.checkpoint import Checkpoint
from support.faults import FIT, Fails, fill_disk, inside, names


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nothing of it": lambda path: path.write_bytes(b""),
    "a folder": put_folder,
    "a link to nowhere": put_broken_link,
}


def test_damaged_cache_entries_are_computed_again(data: Path, whole: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = ["fit", data / "train", *FIT, "--cache-dir", cache]
    inside(*command, "--out", tmp_path / "first")
    entries = {path: path.read_bytes() for path in cache.rglob("??/*.safetensors")}
    assert len(entries) == 12
    for path, damage in zip(list(entries)[::3], sorted(DAMAGES.keys() - {"a folder"}), strict=True):
        DAMAGES[damage](path)
    inside(*command, "--out", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == whole.read_bytes()
    assert {path: path.read_bytes() for path in cache.rglob("??/*.safetensors")} == entries


@pytest.fixture
def stopped(data: Path, tmp_path: Path, refused: Fails) -> list[object]:
    """The command of a fit that stopped after its second epoch, for want of room."""
    command: list[object] = ["fit", data / "train", "--out", tmp_path / "m", *FIT, "--no-cache"]
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, r"\.m\.checkpoint\..*", after=2)
        refused(*command)
    assert names(tmp_path) == ["m.checkpoint"]
    return command


def test_a_damaged_checkpoint_is_named(stopped: list[object], whole: Path, tmp_path: Path, refused: Fails) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    content = checkpoint.read_bytes()
    for damage in ("a folder", "a flipped bit", "half of it", "nothing of it"):
        DAMAGES[damage](checkpoint)
        error = refused(*stopped, "--resume")
        assert str(checkpoint) in error
        assert ("is a folder" if damage == "a folder" else "start again with --force") in error
        assert names(tmp_path) == ["m.checkpoint"]
        if damage == "a folder":
            checkpoint.rmdir()
        if damage != "nothing of it":
            checkpoint.write_bytes(content)
    inside(*stopped, "--force")
    assert (tmp_path / "m").read_bytes() == whole.read_bytes()


def test_every_flipped_byte_of_a_checkpoint_is_found(stopped: list[object], tmp_path: Path) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    content = checkpoint.read_bytes()
    model = torch.nn.Module()
    model.kept = ()
    kept = Checkpoint(checkpoint, "another run's")
    for place in range(0, len(content), len(content) // 200):
        flipped = bytearray(content)
        flipped[place] ^= 1
        checkpoint.write_bytes(flipped)
        with pytest.raises(SotglpError, match="start again with --force") as caught:
            kept.read(model, torch.optim.SGD([torch.zeros(1)]), torch.amp.GradScaler("cpu", enabled=False))
        assert "other settings" not in str(caught.value)
