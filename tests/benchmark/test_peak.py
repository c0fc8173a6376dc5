from __future__ import annotations

import subprocess
import sys

import pytest

from sotglp.benchmark import peak
from sotglp.benchmark.peak import PeakMemory

# In a process of its own: one that has run many tests has freed memory at hand, which no peak would show.
THREE_BLOCKS = """
import numpy as np
from sotglp.benchmark.peak import PeakMemory
for size in (1, 2**25, 1):
    with PeakMemory() as memory:
        np.ones(size).sum()
    print(memory.megabytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_is_that_of_the_block() -> None:
    done = subprocess.run([sys.executable, "-c", THREE_BLOCKS], capture_output=True, text=True, check=True, timeout=300)
    if "None" in done.stdout:
        pytest.skip("this system does not let a process forget its peak")
    idle, busy, again = map(float, done.stdout.split())
    assert busy > idle + 200  # of 256 MiB
    assert again < busy - 100


def test_nothing_is_told_where_the_system_keeps_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "RESET", peak.RESET / "absent")
    with PeakMemory() as memory:
        pass
    assert memory.megabytes is None
