import json
import subprocess
import sys

import pytest
from safetensors import safe_open

from sotglp.cli.demo import table
from sotglp.demo.comparison import METHODS

OFFLINE = """
import socket, sys
def refuse(*_, **__):
    raise OSError("no network in this test")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from sotglp.cli import main
sys.argv = ["sotglp", *sys.argv[1:]]
main()
"""


def run(*arguments, check=True):
    command = [sys.executable, "-c", OFFLINE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


@pytest.mark.slow
def test_the_demo_runs_offline_and_so_do_the_commands_that_it_names(tmp_path):
    out = tmp_path / "demo"
    said = run("demo", "--out", out)
    result = json.loads((out / "result.json").read_text())
    assert [name for name in result["methods"]] == [method.name for method in METHODS]
    for name, one in result["methods"].items():
        (line,) = (line for line in said.stdout.splitlines() if line.startswith(f"{name:24}"))
        assert f"{one['accuracy']:.3f}" in line
        assert f"{one['ood']['far']['auroc']:.3f}" in line
    assert result["methods"]["SOT-GLP"]["accuracy"] > result["methods"]["zero-shot"]["accuracy"]
    assert (out / "plan.png").stat().st_size > 20_000
    with safe_open(out / "model.safetensors", "pt") as file:
        assert "local_prompts" in set(file.keys())
    commands = [line.split()[1:] for line in said.stdout.splitlines() if line.startswith("  sotglp ")]
    assert [command[0] for command in commands] == ["predict", "evaluate", "fit"]
    for command in commands[:2]:
        assert run(*command).stdout
    refused = run("demo", "--out", out, check=False)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "demo").write_text("mine")
    said = run("demo", "--out", tmp_path / "demo", check=False)
    assert said.returncode == 2
    assert said.stderr.startswith("sotglp: error: ")
    assert said.stderr.count("\n") == 1
    assert (tmp_path / "demo").read_text() == "mine"


def test_the_table_has_a_line_for_each_method_and_dashes_where_there_are_no_local_prompts():
    ood = {kind: {"auroc": 0.5, "fpr95": 0.25} for kind in ("near", "mid", "far")}
    shared = {"accuracy": 0.75, "interval": (0.7, 0.8), "ood": ood, "seconds": 3.0}
    local = {"mass_on_parts": 0.456, "chance": 0.123, "overlap": 0.789, "similarity": 0.1}
    lines = table({"one": {**shared, "local": None}, "other": {**shared, "local": local}})
    one, other = (next(line for line in lines if line.startswith(name)) for name in ("one", "other"))
    assert "0.750 [0.700, 0.800]" in one
    assert "0.456" in other
    assert "0.789" in other
    assert len(one) == len(other)
    assert any("0.123" in line for line in lines)
