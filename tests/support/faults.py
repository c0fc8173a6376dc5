"""Commands that meet full disks and signals."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sotglp.cli.commands import app
from support.processes import hear_interrupts

Fails = Callable[..., str]

_SHORT = ["--backbone", "tiny", "--shots", "4", "--set", "augment=false", "--set", "batch_size=4"]
FIT = [*_SHORT, "--epochs", "3"]
# So long that it is still going when something happens to it.
LONG = [*_SHORT, "--epochs", "40"]

FULL = "No space left on device"

SUITE: dict[str, Any] = {
    "backbone": {"name": "tiny", "pretrained": "auto"},
    "datasets": {"own": {"train": "train", "test": "test"}},
    "methods": ["zero-shot", "coop", "linear-probe"],
    "shots": [1, 2],
    "seeds": [1, 2],
    "settings": {"epochs": 3, "augment": False},
}
N_CELLS = 1 + 2 * 2 * 2


def inside(*arguments: object) -> str:
    """What a command prints, without a process of its own."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill_disk(patch: pytest.MonkeyPatch, pattern: str, after: int = 0) -> None:
    """Stop writes of files whose names fit a pattern half way for want of room, all but the first ``after`` ones."""
    write, written = Path.write_bytes, []

    def limited(path: Path, content: bytes) -> int:
        if not re.fullmatch(pattern, path.name):
            return write(path, content)
        written.append(path)
        if len(written) <= after:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, FULL)

    patch.setattr(Path, "write_bytes", limited)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sotglp", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
