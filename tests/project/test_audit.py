"""The audit of dependencies, with a stand-in for pip-audit that says what a real one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit"

SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
BROKEN = {
    "name": "pillow",
    "version": "9.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["9.1"], "aliases": [], "description": "a\nb"}],
}


def audit(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "pip_audit.py").write_text(code)
    return subprocess.run(
        [sys.executable, str(AUDIT)], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )


def saying(packages: list[dict[str, Any]], status: int) -> str:
    said = json.dumps({"dependencies": packages, "fixes": []})
    return f"import sys\nprint({said!r})\nprint('note', file=sys.stderr)\nsys.exit({status})\n"


def test_a_vulnerability_fails_and_is_named(tmp_path: Path) -> None:
    done = audit(tmp_path, saying([SOUND, BROKEN, SKIPPED], 1))
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].split() == ["pillow", "9.0", "PYSEC-1", "fixed", "in", "9.1"]
    assert done.stdout.splitlines()[1:] == ["audit: 1 vulnerabilities in 2 packages; 1 not checked"]


def test_sound_packages_pass(tmp_path: Path) -> None:
    done = audit(tmp_path, saying([SOUND, SOUND], 0))
    assert (done.returncode, done.stdout) == (0, "audit: 0 vulnerabilities in 2 packages; 0 not checked\n")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys\nsys.exit('ERROR: Tip: your network may be blocking this service')", "your network may be"),
        (saying([SKIPPED, SKIPPED], 0), "the service has no data on these packages"),
        ("print('{}')", "no answer"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_where_nobody_answers_it_says_so_in_a_line_and_passes(tmp_path: Path, code: str, why: str) -> None:
    done = audit(tmp_path, code)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("audit: packages could not be checked for known vulnerabilities (")
    assert why in done.stdout


def test_it_waits_for_an_answer_only_so_long(tmp_path: Path) -> None:
    code = AUDIT.read_text().replace("SECONDS = 60", "SECONDS = 1")
    (tmp_path / "quick").write_text(code)
    (tmp_path / "pip_audit.py").write_text("import time\ntime.sleep(60)\n")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "quick")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0
    assert "(no answer within 1 seconds)" in done.stdout
