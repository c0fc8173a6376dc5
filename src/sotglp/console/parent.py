"""Processes that end with the one that started them, also when that one is killed and can't end them."""

from __future__ import annotations

import os
import threading
import time

_WATCH_SECONDS = 1.0


def exit_with_parent(parent: int) -> None:
    """End this process within a second of its parent's end; what it was writing stays incomplete."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
