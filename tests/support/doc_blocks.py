"""Fenced blocks of README.md and docs, and what stands between their words and a computer without network or CLIP.

Three things are not as the pages say: the backbone (`tiny` in place of ViT-B/16), the length of fits, and the photos.
What can't run at all is listed in UNRUN, each line with its reason.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
import yaml
from PIL import Image

from sotglp.cli import main
from sotglp.cli.commands import app
from sotglp.demo.show import save_photos
from sotglp.demo.task import draw_far, image_set
from support.samples import make_class_folders

ROOT = Path(__file__).parents[2]
SHELL, PYTHON, YAML, JSON, TEXT = LANGUAGES = ("sh", "python", "yaml", "json", "text")

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^ *(?P=ticks) *$", re.M | re.S)
SAVED_AS = re.compile(r"[Ss]ave (?:it |this )?as `(?P<name>[^`/]+)`[^`]*\Z")
"""Words before a block that make it a file of the sandbox."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where its code begins, its language, and the name it is to be saved under, if any."""

    line: int
    language: str
    code: str
    saved_as: str | None

    @property
    def commands(self) -> list[str]:
        """Of a shell block: one command a line, without comments; a backslash goes on in the next line."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if shlex.split(line, comments=True)]


def pages() -> list[str]:
    """README.md and all pages of docs, sorted, as paths from the repository's folder."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page in their order."""
    text = (ROOT / page).read_text()
    blocks = []
    for found in FENCE.finditer(text):
        before = text[: found.start()].rsplit("\n\n", 2)
        named = SAVED_AS.search("\n".join(before[-2:]).strip())
        indent = len(found["indent"])
        code = "".join(line[indent:] for line in found["code"].splitlines(keepends=True))
        line = text.count("\n", 0, found.start("code")) + 1
        blocks.append(Block(line, found["language"].strip(), code, named["name"] if named else None))
    return blocks


@dataclass(frozen=True)
class Unrun:
    """A command that is looked at and not run, and why."""

    page: str
    command: str
    why: str


_NO_DATA = "the datasets can't be had; tests/cli/test_benchmark.py runs suites on others"
_NO_FETCH = "asks the network; tests/datasets/test_preparing.py has what it does"
_LONG = "takes a minute or two; tests/cli/test_demo.py runs it"

UNRUN = (
    Unrun("README.md", "make demo", _LONG),
    Unrun("README.md", "make test", "runs these tests"),
    Unrun("README.md", "sotglp benchmark few-shot --root data --out results --processes 2", _NO_DATA),
    Unrun("docs/benchmark.md", "sotglp benchmark few-shot --root data --out results --processes 2", _NO_DATA),
    Unrun("docs/reproduce.md", "sotglp data prepare oxford_pets dtd eurosat --root data", _NO_FETCH),
    Unrun("docs/reproduce.md", "sotglp benchmark paper.yaml --root data --out results --processes 2", _NO_DATA),
    Unrun("docs/start.md", "sotglp demo --out demo", _LONG),
)

INSTALLING = "pip install "
"""How lines begin that would install packages: of all of them the extras alone are looked at."""

FAILING = {"docs/faults.md": "sotglp fit photos/train --out birds.safetensors --backbone ViT-B16"}
"""Commands that show an error: the block after them is what they say."""

_BIRDS = (
    "sotglp fit photos/train --out birds.safetensors",
    "sotglp classes rename birds.safetensors 'blue sea' robin --out birds.safetensors --force",
    "sotglp classes rename birds.safetensors 'green leaf' wren --out birds.safetensors --force",
)

FIRST = {
    "docs/benchmark.md": ("sotglp benchmark folder --root photos --out results",),
    "docs/reproduce.md": ("sotglp benchmark folder --root photos --out results",),
    "docs/explain.md": _BIRDS,
    "docs/onnx.md": ("sotglp fit photos/train --out birds.safetensors --calibrate",),
    "docs/web.md": _BIRDS,
}
"""What a page takes for granted."""

NAMES = {
    "README.md": """
import torch
images, targets = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
""",
    "docs/trust.md": """
from sotglp import SOTGLPClassifier
clf = SOTGLPClassifier("tiny", epochs=2).fit(paths, labels)
""",
    "docs/explain.md": """
from sotglp import SOTGLPClassifier
clf = SOTGLPClassifier.load("birds.safetensors")
""",
}
"""What Python blocks of a page take for granted beside COMMON_NAMES."""

COMMON_NAMES = """
from pathlib import Path
paths = sorted(Path("photos/train").rglob("*.png"))
labels = [path.parent.name for path in paths]
held_out = held_out_paths = sorted(Path("photos/val").rglob("*.png"))
held_out_labels = [path.parent.name for path in held_out]
new = new_paths = sorted(Path("photos/test").rglob("*.png"))
hoopoe_paths = sorted(Path("hoopoes").glob("*.png"))
"""

SMALLER_SUITE = """
datasets: {own: {train: train, test: test}}
methods: [zero-shot, sot-glp]
shots: [1]
seeds: [1]
settings: {epochs: 1}
"""

IN_PYTHON = (
    (re.compile(r'"ViT-B-16"'), '"tiny"'),
    (re.compile(r'pretrained="openai"'), "pretrained=None"),
    (re.compile(r"\bepochs=\d+"), "epochs=2"),
)

LAST_WORDS = {
    ("fit",): ["--backbone", "tiny", "--pretrained", "auto", "--epochs", "2", "--shots", "4"],
    ("benchmark",): ["--backbone", "tiny"],
    ("data", "check"): ["--backbone", "tiny"],
}
"""Options that end a command: of an option given twice the second counts."""


def substituted(arguments: list[str]) -> list[str]:
    """Arguments of `sotglp` for a computer without CLIP's weights, with little time."""
    if arguments[:2] == ["benchmark", "folder"]:
        arguments = ["benchmark", "smaller.yaml", *arguments[2:]]
    for command, words in LAST_WORDS.items():
        if tuple(arguments[: len(command)]) == command:
            arguments = [*arguments, *words]
    return arguments


def make_sandbox(folder: Path) -> None:
    """Lay out photos as the pages speak of them: noise of three colours, and painted ones for the demonstration."""
    for seed, name in enumerate(("photos/train", "photos/test", "photos/val", "caltech101/train", "caltech101/test")):
        make_class_folders(folder / name, per_class=6, seed=seed)
    for name in ("DATA/train", "DATA/test"):
        make_class_folders(folder / name, per_class=6, seed=len(name))
    rng = np.random.default_rng(9)
    for name in ("photos/other_things", "photos/other", "OTHERS", "garden", "more_photos", "hoopoes"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(rng.integers(256, size=(40, 40, 3), dtype=np.uint8)).save(folder / name / f"{index}.png")
    for name in ("garden.jpg", "pond.jpg", "h1.jpg", "h2.jpg"):
        Image.fromarray(rng.integers(256, size=(40, 40, 3), dtype=np.uint8)).save(folder / name)
    (folder / "data").mkdir()
    (folder / "smaller.yaml").write_text(SMALLER_SUITE)


def paint_demo(folder: Path) -> None:
    """What `sotglp demo` leaves for the commands after it, with fewer pictures."""
    from sotglp.demo.comparison import draw_shots_of_task

    save_photos(folder / "demo/photos/train", draw_shots_of_task(4, seed=1))
    save_photos(folder / "demo/photos/test", draw_shots_of_task(2, seed=2))
    save_photos(folder / "demo/photos/far", image_set(draw_far(8, seed=3)))


def make_shim(folder: Path) -> Path:
    """A folder for PATH with a `sotglp` that substitutes, for lines that need a shell."""
    shim = folder / "bin" / "sotglp"
    shim.parent.mkdir()
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT / 'tests')!r})"]
    lines += ["from doc_blocks import run_sotglp", "run_sotglp(sys.argv[1:])"]
    shim.write_text("\n".join(lines) + "\n")
    shim.chmod(0o755)
    return shim.parent


def run_sotglp(arguments: list[str], *, as_written: bool = False) -> None:
    """Run a command in this process: a new one would spend seconds on imports."""
    before = sys.argv
    sys.argv = ["sotglp", *(arguments if as_written else substituted(arguments))]
    try:
        main()
    finally:
        sys.argv = before


def run_command(command: str) -> None:
    """Run a line of a shell block; AssertionError where it ends with another code than 0."""
    words = shlex.split(command, comments=True)
    if words[0] == "sotglp" and not any(mark in command.split("#")[0] for mark in "|&;<>$*"):
        code = 0
        try:
            run_sotglp(words[1:])
        except SystemExit as end:
            code = end.code or 0
        assert code == 0, f"{command}: exit code {code}"
        return
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stderr}"


def check_unrun(command: str) -> None:
    """Look at a command that can't run: its target exists, its options are read, its extras are there."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "sotglp":
        check_options(words[1:])
    elif words[:2] == ["pip", "install"]:
        declared = (ROOT / "pyproject.toml").read_text()
        for extra in re.findall(r"\[([\w,]+)\]", command):
            for name in extra.split(","):
                assert re.search(rf"^{name} = \[", declared, re.M), f"there is no extra {name!r}"
    else:
        raise AssertionError(f"nothing is known of {words[0]!r}: teach check_unrun to look at it")


def check_options(arguments: list[str]) -> None:
    """Let the command line read arguments, and stop before anything is done."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("sotglp", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def run_python(page: str, block: Block, names: dict[str, Any]) -> None:
    """Run a Python block among the names of earlier ones; its lines are counted as in the page."""
    code = block.code
    for pattern, replacement in IN_PYTHON:
        code = pattern.sub(replacement, code)
    exec(compile("\n" * (block.line - 1) + code, page, "exec"), names)


def check_yaml(block: Block) -> None:
    """Read YAML; what has datasets and methods must be a suite."""
    from sotglp.benchmark.suite import load_suite

    values = yaml.safe_load(block.code)
    if isinstance(values, dict) and {"datasets", "methods"} <= values.keys():
        Path("suite_of_a_page.yaml").write_text(block.code)
        load_suite("suite_of_a_page.yaml")


def commands_of(page: str) -> Iterator[str]:
    """Every shell command of a page."""
    for block in blocks_of(page):
        if block.language == SHELL:
            yield from block.commands
