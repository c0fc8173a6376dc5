"""A model file, a client of a server in this process, and a server process."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from sotglp import SOTGLPClassifier
from sotglp.web.access import Access
from sotglp.web.app import create_app
from sotglp.web.limits import Limits
from sotglp.web.live_model import LiveModel, load_served
from sotglp.web.training import TrainingOptions
from support.samples import COLOURS, coloured_image, make_class_folders

OLD = sorted(COLOURS)
QUICK = {"epochs": 2, "batch_size": 9, "augment": False, "shots": None, "workers": 0}


def make_model(root: Path, *, calibrated: bool = True) -> Path:
    """A model on the package's own small backbone, and the images that it learned from beside it in root/train."""
    make_class_folders(root / "train", per_class=3)
    classifier = SOTGLPClassifier("tiny", **QUICK).fit(root / "train")
    if calibrated:
        classifier.calibrate(root / "train")
    classifier.save(root / "m.safetensors")
    return root / "m.safetensors"


@contextmanager
def client(
    model_file: Path, limits: Limits | None = None, access: Access | None = None, **options: Any
) -> Iterator[TestClient]:
    """A client of a server in this process."""
    live = LiveModel(model_file.name, load_served(model_file, device="cpu", batch_size=8))
    app = create_app(live, limits or Limits(), access or Access())
    with TestClient(app, base_url="http://localhost", **options) as own:
        yield own
    app.state.service.close()


@contextmanager
def training_client(limits: Limits | None = None, out: Path | None = None, **options: Any) -> Iterator[TestClient]:
    """A client of a server in this process that has no model and trains on the backbone tiny."""
    training = TrainingOptions(("tiny", "photo"), out, "cpu", 8)
    app = create_app(LiveModel(out.name if out else "model.safetensors", None), limits or Limits(), Access(), training)
    with TestClient(app, base_url="http://localhost", **options) as own:
        yield own
    app.state.service.close()


def png(colour: tuple[int, int, int] = (128, 128, 128), seed: int = 0, size: int = 40) -> bytes:
    """An image file of noise around one colour."""
    return encoded(coloured_image(np.random.default_rng(seed), colour, size))


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def files(*contents: bytes | tuple[str, bytes], field: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    """Images as httpx sends them; those without a name are called 0.png, 1.png..."""
    named = [one if isinstance(one, tuple) else (f"{index}.png", one) for index, one in enumerate(contents)]
    return [(field, one) for one in named]


@contextmanager
def server_process(*arguments: object, descriptors: int | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``sotglp serve`` on a free port, with a limit of open files: the process, and its address."""
    command = [sys.executable, "-m", "sotglp", "serve", *map(str, arguments), "--port", "0"]
    if descriptors:
        command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line + process.stderr.read() if process.stderr else line
            yield process, found.group()
        finally:
            process.kill()
