"""The most memory that a stretch of work had at once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

from typing_extensions import Self

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


class PeakMemory:
    """Measure resident memory of this process while a block runs.

    Linux forgets the peak of earlier work at the start; other systems do not, so that nothing is told there.

    Attributes
    ----------
    megabytes : float or None
        The peak in 2**20 bytes, once the block is left; None where the system does not tell.
    """

    megabytes: float | None = None

    def __enter__(self) -> Self:
        self._is_reset = False
        with suppress(OSError):
            RESET.write_text(RESET_PEAK)
            self._is_reset = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self._is_reset:
            lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
            self.megabytes = int(lines["VmHWM"].split()[0]) / 1024
        return False
