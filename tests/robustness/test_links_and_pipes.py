"""Links, pipes and devices among images: followed once, or refused unopened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sotglp import Backbone
from sotglp.errors import UnreadableImageError
from sotglp.features.views import Views, in_order
from sotglp.images.decode import open_image
from sotglp.images.digest import content_digest
from sotglp.images.image_set import ImageSet
from support.command import QUICK_FIT, sotglp
from support.samples import COLOURS, make_class_folders, tiny_clip


def test_links_that_loop_or_lead_nowhere(tmp_path: Path, picture: bytes) -> None:
    root = tmp_path / "root"
    for label in COLOURS:
        (root / label).mkdir(parents=True)
        (root / label / "0.png").write_bytes(picture)
    loops = {"here": ".", "root": "../../root", "self.png": "self.png", "a.png": "b.png", "b.png": "a.png"}
    for name, aim in {**loops, "gone.png": "nowhere.png"}.items():
        (root / "red_brick" / name).symlink_to(aim)
    (root / "up").symlink_to("../root")
    with pytest.warns(UserWarning, match="without images are ignored: up"):
        listed = ImageSet.from_path(root)
    broken = ["a.png", "b.png", "gone.png", "self.png"]
    assert [path.name for path in listed.images] == ["0.png", "0.png", "0.png", *broken]
    unreadable: list[UnreadableImageError] = []
    encode(listed, unreadable)
    assert [Path(error.source).name for error in unreadable] == broken


def encode(images: ImageSet, unreadable: list[UnreadableImageError]) -> list[torch.Tensor]:
    backbone = Backbone.from_open_clip(tiny_clip())
    views = Views(backbone, images, backbone.preprocess, precision="fp32")
    batches = views.encode_batches(in_order(len(images)), unreadable=unreadable)
    return [encoded.image_features for _, encoded in batches]


@pytest.mark.parametrize("device", ["pipe", "/dev/zero", "/dev/tty"])
def test_pipes_and_devices_named_like_images_are_refused_unopened(tmp_path: Path, device: str) -> None:
    root = make_class_folders(tmp_path / "train", per_class=1)
    endless = root / "red_brick" / "endless.jpg"
    if device == "pipe":
        os.mkfifo(endless)
    else:
        endless.symlink_to(device)
    for read in (open_image, content_digest):
        with pytest.raises(UnreadableImageError, match="it is a pipe, a socket or a device"):
            read(endless)
    unreadable: list[UnreadableImageError] = []
    encode(ImageSet.from_path(root), unreadable)
    assert [error.source for error in unreadable] == [str(endless)]


@pytest.mark.slow
def test_commands_do_not_wait_for_pipes(tmp_path: Path, model_file: Path) -> None:
    root = make_class_folders(tmp_path / "train", per_class=2)
    pipes = [root / "red_brick" / "endless.jpg", *(tmp_path / name for name in ("a.csv", "a.parquet", "a.yaml"))]
    for pipe in pipes:
        os.mkfifo(pipe)
    done = sotglp("predict", model_file, root, "--skip-unreadable", "--workers", 1)
    assert done.stdout.splitlines()[8] == "6 images:"
    assert "endless.jpg" in done.stderr
    for data, preset in ((root, "folder"), (pipes[1], "folder"), (pipes[2], "folder"), (root, pipes[3])):
        done = sotglp("fit", data, "--out", tmp_path / "m", *QUICK_FIT, "--preset", preset, check=False)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
