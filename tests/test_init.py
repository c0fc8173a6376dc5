from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("before", "environment", "policy"),
    [
        ("pass", {}, "PASSIVE"),
        ("pass", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ("import sys; sys.modules['torch'] = None", {}, None),
    ],
    ids=["torch is loaded later", "the user chose", "torch is loaded already"],
)
def test_threads_wait_passively_where_torch_still_reads_it(
    before: str, environment: dict[str, str], policy: str | None
) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = f"{before}; import os, sotglp; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run([sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(policy), done.stderr
