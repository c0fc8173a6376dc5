"""What is left out of shards, which is reported once for all of them."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field

from sotglp.errors import SotglpWarning
from sotglp.images.folders import describe_left_out


@dataclass
class ShardNotes:
    """Files of archives that are no images, by suffix, and the number of images that lose values or pages, by what."""

    left_out: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)

    def warn(self) -> None:
        """Emit a SotglpWarning about each kind."""
        if self.left_out:
            warnings.warn(f"in the archives, {describe_left_out(self.left_out)}", SotglpWarning, stacklevel=3)
        for what, count in self.losses.items():
            are = "1 image is" if count == 1 else f"{count} images are each"
            warnings.warn(f"{are} {what}", SotglpWarning, stacklevel=3)
