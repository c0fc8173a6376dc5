"""What all commands have in common: start-up, help, and paths that can't be used."""

from __future__ import annotations

import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest

from sotglp import SOTGLPClassifier
from sotglp.cli.commands import COMMANDS
from sotglp.export.onnx_file import export_model
from support.command import Run, sotglp
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
    ],
)
def test_no_heavy_library_is_imported(files: Path, command: str) -> None:
    words = [word.format(files) for word in command.split()]
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    assert done.stdout


def test_a_prediction_imports_no_scikit_learn(files: Path) -> None:
    command = ["predict", files / "m.safetensors", files / "train" / "red_brick", "--ood-method", "mahalanobis"]
    counted = MEASURE + "print(len(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", counted, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, n_modules = done.stderr.splitlines()[-2:]
    # open_clip imports torchvision, which imports parts of scipy if transformers is installed.
    assert not {"sklearn", "matplotlib"} & set(literal_eval(imported))
    assert int(n_modules) < 4000, "4,500 before scikit-learn was left out, 3,360 after it"


def test_every_help_has_an_example_and_imports_no_heavy_library() -> None:
    commands = [f"{name} {sub}" for name in COMMANDS for sub in GROUPS.get(name, ("",))]
    done = subprocess.run([sys.executable, "-c", HELP, *map(str.strip, commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_listed_with_its_summary() -> None:
    text = " ".join(sotglp("--help").stdout.replace("│", " ").split())
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in text


@pytest.mark.parametrize(("words", "found"), [("sotglp ev", "evaluate"), ("sotglp fit --calibrate-", "--calibrate-on")])
def test_the_shell_completes_commands_and_options(words: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_SOTGLP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": len(words.split()) - 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    assert found in sotglp().stdout.split()


def test_an_unknown_command_suggests_the_nearest() -> None:
    done = sotglp("evalute", check=False)
    assert done.returncode == 2
    assert "Did you mean 'evaluate'" in done.stderr


LONG = "x" * 300
PATHS = [
    "fit LONG --out {}/n",
    "fit {}/train --out LONG",
    "fit {}/train --out {}/n --json LONG",
    "fit {}/train --out {}/n --preset LONG",
    "fit {}/train --out {}/n --calibrate-on LONG",
    "fit {}/train --out {}/n --backbone tiny --pretrained LONG",
    "fit {}/train --out {}/n --backbone tiny --cache-dir LONG",
    "fit {}/train --out {}/" + "y" * 240,
    "evaluate LONG {}/train",
    "evaluate {}/m.safetensors LONG",
    "evaluate {}/m.safetensors {}/train --ood LONG",
    "evaluate {}/m.safetensors {}/train --cache-dir LONG",
    "predict LONG {}/train/red_brick",
    "predict {}/m.safetensors LONG",
    "predict {}/m.onnx LONG",
    "predict LONG.onnx {}/train/red_brick",
    "predict {}/m.onnx {}/train/red_brick --csv LONG",
    "explain {}/m.safetensors LONG --json -",
    "explain {}/m.safetensors {}/train/red_brick/0.png --out LONG.png",
    "export {}/m.safetensors --out LONG.onnx",
    "export {}/m.safetensors --out {}/n.onnx --check LONG",
    "serve LONG",
    "benchmark LONG --out {}/n",
    "benchmark few-shot --out LONG",
    "report LONG --out {}/n",
    "report {}/m.safetensors LONG --out {}/n",
    "report {}/m.safetensors {}/train --out LONG",
    "info LONG",
    "data check LONG --skip-labels",
    "classes list LONG",
    "classes add {}/m.safetensors fog LONG --out {}/n",
    "classes add {}/m.safetensors fog {}/train/red_brick --others LONG --out {}/n",
    "classes remove {}/m.safetensors red_brick --out LONG",
    "cache prune --all --cache-dir LONG",
    "demo --out LONG",
]


@pytest.mark.parametrize("command", PATHS)
def test_a_name_that_is_too_long_is_a_sentence(
    files: Path, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error_of: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command.replace("LONG", LONG).replace("{}/n", str(tmp_path / "n")).replace("{}", str(files)).split()
    error_of(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("predict m.onnx images --csv a --json a", "--csv and --json both write to"),
        ("predict m.safetensors images --csv a --json ./a", "--csv and --json both write to"),
        ("predict m.safetensors images --csv - --json -", "both write to standard output"),
        ("fit images --out a --json a", "--json and --out both write to"),
        ("fit images --out a --json a.checkpoint", "--json and the checkpoint both write to"),
        ("explain m.safetensors a.png --out a.json --json a.json", "--out and --json both write to"),
        ("explain m.safetensors a.png --out a.png --json a.png", "--out and --json both write to"),
        ("export m.safetensors --out a.onnx --json a.onnx", "--json and --out both write to"),
        ("classes remove m.safetensors a --out b --json b", "--json and --out both write to"),
        ("benchmark few-shot --out a --json a/results.jsonl", "--json and --out both write to"),
        ("report m.safetensors images --out a --json a", "--json and --out both write to"),
        ("demo --out a --json a/prompts.png", "--json and prompts.png both write to"),
        ("demo --painted --out a --json a/plan.png", "--json and plan.png both write to"),
    ],
)
def test_outputs_that_collide_are_refused_before_any_work(
    command: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error_of: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in error_of(*command.split())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("fit {}/train --out n --seed 99999999999999999999", "seed = 99999999999999999999"),
        ("fit {}/train --out n --set learning_rate=.inf", "learning_rate = inf"),
        ("fit {}/train --out n --set relaxation=.nan", "relaxation = nan"),
        ("fit {}/train --out n --device meta", "device 'meta'"),
        ("evaluate {}/m.safetensors {}/train --temperature inf", "temperature = inf"),
        ("predict {}/m.safetensors {}/train/red_brick --temperature 1e-40", "temperature = 1e-40"),
        ("predict {}/m.safetensors {}/train/red_brick --coverage nan", "coverage = nan"),
        ("serve {}/m.safetensors --max-image-mb inf", "max_image_mb = inf"),
        ("serve {}/m.safetensors --max-seconds nan", "max_seconds = nan"),
        ("cache prune --older-than inf --cache-dir n", "older_than = inf"),
        ("cache prune --keep " + "9" * 400 + "GB --cache-dir n", "is not a size"),
    ],
)
def test_numbers_out_of_range_are_named(
    files: Path, options: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error_of: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in error_of(*options.format(*[files] * 2).split())
    assert list(tmp_path.iterdir()) == []
