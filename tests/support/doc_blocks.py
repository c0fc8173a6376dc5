"""How code blocks of the documentation run without a network, CLIP weights, or much time.

Sybil finds the blocks of a page and runs them in order. Commands use the backbone `tiny`, short fits and noise images.
A comment above a block marks what does not run as written:

- `<!-- checked, not run: REASON -->`: options, targets and extras are checked, for all commands of the block;
- `<!-- fails: REASON -->`: the command ends with exit code 2.

A block in `<!-- invisible-code-block: LANGUAGE ... -->` prepares what a page assumes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from sybil import Example, Lexeme, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from support.samples import make_class_folders

ROOT = Path(__file__).parents[2]
SERVED_AT = "127.0.0.1:8000"
MARK = re.compile(r"<!-- (?P<kind>checked, not run|fails): .+? -->\n*\Z")
SAVED_AS = re.compile(r"[Ss]ave as `(?P<name>[^`/]+)`[^`]*\Z")

PYTHON_NAMES = """
import torch
from pathlib import Path
images, targets = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
paths = sorted(Path("photos/train").rglob("*.png"))
labels = [path.parent.name for path in paths]
held_out = held_out_paths = sorted(Path("photos/val").rglob("*.png"))
held_out_labels = [path.parent.name for path in held_out]
new = new_paths = sorted(Path("photos/test").rglob("*.png"))
hoopoe_paths = sorted(Path("hoopoes").glob("*.png"))
"""

# The packaged suites need CLIP weights and downloads.
SMALL_SUITE = """
datasets: {own: {train: train, test: test}}
methods: [zero-shot, sot-glp]
shots: [1]
seeds: [1]
settings: {epochs: 1}
"""

IN_PYTHON = (
    (re.compile(r'"(?:ViT-B-16|photo)"'), '"tiny"'),
    (re.compile(r'pretrained="openai"'), "pretrained=None"),
    (re.compile(r"\bepochs=\d+"), "epochs=2"),
)

# Options that end a command: when an option is repeated, the last one counts.
LAST_OPTIONS = {
    ("fit",): ["--backbone", "tiny", "--pretrained", "auto", "--epochs", "2", "--shots", "4"],
    ("benchmark",): ["--backbone", "tiny"],
    ("data", "check"): ["--backbone", "tiny"],
}


class Server:
    """`sotglp serve` on a free port."""

    def __init__(self, arguments: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        port = self.address.split(":")[1]
        self.process = subprocess.Popen([sys.executable, "-m", "sotglp", *arguments, "--port", port])
        for _ in range(600):
            assert self.process.poll() is None, f"exit code {self.process.returncode}"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.address}/model"):
                return
            time.sleep(0.2)
        raise AssertionError("no answer within two minutes")

    def stop(self) -> None:
        """Terminate the process."""
        self.process.terminate()
        self.process.wait(timeout=60)


def start_page(namespace: dict[str, Any]) -> None:
    """Enter a folder with the photos that the pages mention."""
    patch, folder = pytest.MonkeyPatch(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    namespace.update(_patch=patch, _folder=folder, _server=None, _sigterm=signal.getsignal(signal.SIGTERM))
    patch.chdir(folder.name)
    patch.setenv("SOTGLP_CACHE", str(Path(folder.name) / "cache"))
    patch.setattr("sotglp.settings.LEAST_STEPS", 2)
    patch.setattr("sotglp.settings.FEWEST_EPOCHS", 1)
    patch.setattr(warnings, "showwarning", warnings.showwarning)
    for seed, name in enumerate(("photos/train", "photos/test", "photos/val", "caltech101/train", "caltech101/test")):
        make_class_folders(Path(name), per_class=6, seed=seed)
    for name in ("DATA/train", "DATA/test"):
        make_class_folders(Path(name), per_class=6, seed=len(name))
    images = [image for part in ("train", "test") for image in sorted(Path("photos", part).rglob("*.png"))]
    rows = [f"{image},{image.parts[2]},{image.parts[1]}" for image in images]
    Path("photos.csv").write_text("\n".join(["path,label,split", *rows]))
    rng = np.random.default_rng(9)
    folders = ("photos/other_things", "photos/other", "OTHERS", "garden", "more_photos", "hoopoes")
    files = [Path(name, f"{index}.png") for name in folders for index in range(4)]
    for file in [*files, *map(Path, ("garden.jpg", "pond.jpg", "h1.jpg", "h2.jpg"))]:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(40, 40, 3), dtype=np.uint8)).save(file)
    Path("data").mkdir()
    Path("small_suite.yaml").write_text(SMALL_SUITE)
    exec(PYTHON_NAMES, namespace)


def end_page(namespace: dict[str, Any]) -> None:
    """Stop the page's server and leave its folder."""
    if namespace["_server"]:
        namespace["_server"].stop()
    namespace["_patch"].undo()
    signal.signal(signal.SIGTERM, namespace["_sigterm"])
    namespace["_folder"].cleanup()


def commands_of(code: str) -> list[str]:
    """Return the commands of a shell block, one a line; a backslash continues a line."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if shlex.split(line, comments=True)]


def run_shell(example: Example) -> None:
    """Run the commands of a shell block."""
    mark = MARK.search(example.document.text[: example.start])
    for command in commands_of(example.parsed):
        if command.startswith("pip install ") or (mark and mark["kind"] == "checked, not run"):
            check_command(command)
        elif mark:
            assert exit_code(command, as_written=True) == 2, f"{command}: expected exit code 2"
        elif command.startswith("sotglp serve "):
            example.namespace["_server"] = Server(shlex.split(command)[1:])
        else:
            if command.startswith("curl "):
                command = command.replace(SERVED_AT, example.namespace["_server"].address) + " -sS --fail-with-body"
            code = exit_code(command)
            assert code == 0, f"{command}: exit code {code}"


def exit_code(command: str, *, as_written: bool = False) -> int:
    """Run a command, sotglp in this process because imports take seconds in a new one."""
    from sotglp.cli import main

    words = shlex.split(command)
    if words[0] != "sotglp":
        return subprocess.run(["bash", "-euo", "pipefail", "-c", command], timeout=120).returncode
    arguments = words[1:]
    if not as_written:
        if arguments[:2] == ["benchmark", "folder"]:
            arguments[1] = "small_suite.yaml"
        for start, options in LAST_OPTIONS.items():
            if tuple(arguments[: len(start)]) == start:
                arguments += options
    before, sys.argv = sys.argv, ["sotglp", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def check_command(command: str) -> None:
    """Check a command without running it: make targets, options of sotglp, extras of pip install."""
    words = shlex.split(command)
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "sotglp":
        check_options(words[1:])
    else:
        is_known = words[:2] in (["pip", "install"], ["pipx", "install"]) or words[:3] == ["uv", "tool", "install"]
        assert is_known, f"{command}: no check for {words[0]!r}"
        declared = (ROOT / "pyproject.toml").read_text()
        for name in (name for extra in re.findall(r"\[([\w,]+)\]", command) for name in extra.split(",")):
            assert re.search(rf"^{name} = \[", declared, re.M), f"there is no extra {name!r}"


def check_options(arguments: list[str]) -> None:
    """Parse arguments of sotglp without running the command."""
    from sotglp.cli.commands import app

    command: Any = typer.main.get_command(app)
    context = command.make_context("sotglp", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def run_python(example: Example) -> None:
    """Run a Python block with the backbone `tiny` and few epochs."""
    code = example.parsed
    for pattern, replacement in IN_PYTHON:
        code = pattern.sub(replacement, code)
    example.parsed = Lexeme(code, example.parsed.offset, example.parsed.line_offset)
    PythonEvaluator()(example)


def run_yaml(example: Example) -> None:
    """Read YAML, as a suite if it holds datasets and methods; save it under the name that the page gives it."""
    from sotglp.benchmark.suite import load_suite

    values = yaml.safe_load(example.parsed)
    named = SAVED_AS.search(example.document.text[: example.start].strip().rsplit("\n\n", 1)[-1])
    name = named["name"] if named else "block.yaml"
    Path(name).write_text(str(example.parsed))
    if {"datasets", "methods"} <= values.keys():
        load_suite(name)


def run_json(example: Example) -> None:
    """Read JSON."""
    json.loads(example.parsed)


def run_text(example: Example) -> None:
    """Refuse commands in a text block, where nothing would run them."""
    hidden = [line for line in example.parsed.splitlines() if line.split()[:1] in (["sotglp"], ["make"], ["pip"])]
    assert not hidden, f"{hidden} are commands: mark the block as sh"


EVALUATORS = {"sh": run_shell, "python": run_python, "yaml": run_yaml, "json": run_json, "text": run_text}
SYBIL = Sybil(
    parsers=[CodeBlockParser(language, evaluator) for language, evaluator in EVALUATORS.items()],
    path=os.fspath(ROOT),
    patterns=["README.md", "docs/*.md"],
    setup=start_page,
    teardown=end_page,
)
