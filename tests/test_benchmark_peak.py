from __future__ import annotations

import sys

import numpy as np
import pytest

from sotglp.benchmark import peak
from sotglp.benchmark.peak import PeakMemory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_is_that_of_the_block() -> None:
    with PeakMemory() as idle:
        pass
    with PeakMemory() as busy:
        np.ones(2**25).sum()  # 256 MiB
    with PeakMemory() as again:
        pass
    if idle.megabytes is None:
        pytest.skip("this system does not let a process forget its peak")
    assert busy.megabytes is not None
    assert again.megabytes is not None
    assert busy.megabytes > idle.megabytes + 200
    assert again.megabytes < busy.megabytes - 100


def test_nothing_is_told_where_the_system_keeps_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "RESET", peak.RESET / "absent")
    with PeakMemory() as memory:
        pass
    assert memory.megabytes is None
