"""What needs no download asks nothing of the network: a process that does ends at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from sotglp import Backbone
from sotglp.benchmark.results import append
from support.no_network import STATUS
from support.results import made
from support.samples import make_class_folders

# Commands one after another in one process, since starting one takes seconds.
COMMANDS = """
import json, sys
import sotglp
from sotglp.cli import main
for name in sotglp.__all__:
    getattr(sotglp, name)
for arguments in json.load(sys.stdin):
    sys.argv = ["sotglp", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, arguments
    print("done:", arguments[0], flush=True)
"""


def without_network(tmp_path: Path, *command: object, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python so that it and its children end when they ask for the network."""
    start = tmp_path / "start"
    start.mkdir(exist_ok=True)
    (start / "sitecustomize.py").write_text("from no_network import forbid_network\nforbid_network()\n")
    places = os.pathsep.join([str(start), str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "support")])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        input=text,
        capture_output=True,
        text=True,
        timeout=800,
        env=os.environ | {"PYTHONPATH": places, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hub")},
    )


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import socket; socket.create_connection(('127.0.0.1', 9))"),
        ("-c", "import socket; socket.getaddrinfo('localhost', 9)"),
        ("-m", "sotglp", "fit", "images", "--out", "m", "--backbone", "ViT-B-32", "--pretrained", "openai"),
    ],
)
def test_the_network_is_noticed(tmp_path: Path, command: tuple[str, ...]) -> None:
    images = make_class_folders(tmp_path / "images", per_class=2)
    words = [str(images) if word == "images" else str(tmp_path / "m") if word == "m" else word for word in command]
    done = without_network(tmp_path, *words)
    assert done.returncode == STATUS
    assert "network: socket." in done.stderr


def test_imports_and_commands_that_need_no_download_ask_for_none(tmp_path: Path) -> None:
    images = make_class_folders(tmp_path / "images", per_class=2)
    weights, whole, lean = tmp_path / "weights.safetensors", tmp_path / "whole.safetensors", tmp_path / "lean"
    safetensors.torch.save_file(Backbone.load("tiny", "none", seed=3).clip.state_dict(), weights)
    append(tmp_path / "results.jsonl", made("sot-glp", shots=1, seed=1, accuracy=0.5, ood={}))
    quick = ["--shots", "1", "--epochs", "1", "--set", "augment=false", "--no-cache"]
    random = ["--backbone", "ViT-S-32-alt", "--pretrained", "none", "--image-size", "64", "--set", "top_k=3"]
    commands = [
        ["fit", images, "--out", whole, "--backbone", "tiny", *quick, "--include-backbone"],
        ["fit", images, "--out", lean, "--backbone", "tiny", "--pretrained", weights, *quick],
        ["fit", images, "--out", tmp_path / "random", *random, *quick],
        ["evaluate", whole, images, "--ood", images / "blue sea"],
        ["predict", lean, images / "blue sea"],
        ["predict", tmp_path / "random", images / "blue sea"],
        ["info"],
        ["info", whole],
        ["info", "--backbones"],
        ["data", "list"],
        ["benchmark", "few-shot", "--dry-run"],
        ["report", tmp_path / "results.jsonl", "--out", tmp_path / "report"],
        ["cache", "list", "--cache-dir", tmp_path],
    ]
    done = without_network(tmp_path, "-c", COMMANDS, text=json.dumps([[*map(str, command)] for command in commands]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: ") == len(commands)
