"""Commands that need no heavy library start without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sotglp import SOTGLPClassifier
from sotglp.cli.commands import COMMANDS
from sotglp.export.onnx_file import export_model
from support.command import sotglp
from support.samples import make_class_folders

HEAVY = ("torch", "open_clip", "timm", "torchvision", "sklearn", "scipy", "matplotlib")
GROUPS = {
    "data": ("list", "check", "prepare"),
    "classes": ("list", "add", "remove", "rename"),
    "cache": ("list", "prune"),
}
MEASURE = f"""
import sys
from sotglp.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
HELP = f"""
import contextlib, io, sys
from sotglp.cli import main
for command in sys.argv[1:]:
    sys.argv[1:] = [*command.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    assert f"Example: sotglp {{command}}" in out.getvalue(), command
    assert not [name for name in {HEAVY} if name in sys.modules], command
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model file, an exported model and images."""
    root = tmp_path_factory.mktemp("startup")
    make_class_folders(root / "train", per_class=2)
    classifier = SOTGLPClassifier("tiny", epochs=1, augment=False, shots=None).fit(root / "train")
    classifier.save(root / "m.safetensors")
    export_model(root / "m.onnx", classifier.model_)
    return root


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "--help",
        "classes list {}/m.safetensors",
        "info {}/m.safetensors",
        "info --presets",
        "info --methods",
        "cache list --cache-dir {}/cache",
        "data list",
        "benchmark few-shot --dry-run",
        "predict {}/m.onnx {}/train/red_brick",
        "--show-completion",
    ],
)
def test_no_heavy_library_is_imported(files: Path, command: str) -> None:
    words = [word.format(files) for word in command.split()]
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    assert done.stdout


def test_every_help_has_an_example_and_imports_no_heavy_library() -> None:
    commands = [f"{name} {sub}" for name in COMMANDS for sub in GROUPS.get(name, ("",))]
    done = subprocess.run([sys.executable, "-c", HELP, *map(str.strip, commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_listed_with_its_summary() -> None:
    text = " ".join(sotglp("--help").stdout.replace("│", " ").split())
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in text


def test_an_unknown_command_suggests_the_nearest() -> None:
    done = sotglp("evalute", check=False)
    assert done.returncode == 2
    assert "Did you mean 'evaluate'" in done.stderr
