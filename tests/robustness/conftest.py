"""Data, models and a running fit that faults happen to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from sotglp import SOTGLP, Backbone
from sotglp.model_file.save import save_model
from support.command import error_line, run_here
from support.faults import FIT, LONG, SUITE, Fails, inside
from support.processes import hear_interrupts, wait_for
from support.samples import COLOURS, coloured_image, make_class_folders


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Run a command that ends with code 2 and one sentence, which is returned; it may have told results before."""

    def run(*arguments: object) -> str:
        return error_line(run_here(capsys, monkeypatch, *arguments, code=2)[1])

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_class_folders(root / "train", per_class=4, seed=0)
    make_class_folders(root / "test", per_class=2, seed=1)
    return root


@pytest.fixture(scope="session")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file of a fit that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "m"
    inside("fit", data / "train", "--out", out, *FIT, "--no-cache")
    return out


@pytest.fixture(scope="session")
def whole_long(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("long") / "m"
    inside("fit", data / "train", "--out", out, *LONG, "--no-cache")
    return out


@pytest.fixture
def running(data: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long fit that has written its first checkpoint."""
    command = [sys.executable, "-m", "sotglp", "fit", str(data / "train"), "--out", str(tmp_path / "m"), *LONG]
    process = subprocess.Popen(
        [*command, "--no-cache"], stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_interrupts
    )
    try:
        wait_for((tmp_path / "m.checkpoint").exists, process)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def suite(data: Path) -> Path:
    path = data / "suite.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    return path


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    coloured_image(np.random.default_rng(0), (200, 60, 50)).save(path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, SOTGLP(Backbone.load("tiny"), list(COLOURS), top_k=3))
    return path
