"""Recognise within seconds that the Hugging Face Hub can't be reached, which its client only admits after a minute."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

PATIENCE = 4.0
"""Seconds for finding and reaching the hub."""


@contextmanager
def no_waiting_for_the_hub() -> Iterator[None]:
    """Make the hub's client look into its cache only, if the hub can't be reached now.

    Files in the cache are found as before. With a proxy nothing is changed, since only the proxy can tell.
    """
    before = constants.HF_HUB_OFFLINE
    if not (before or getproxies() or is_reachable(constants.ENDPOINT)):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_reachable(address: str) -> bool:
    """Whether a server accepts a connection within PATIENCE seconds, the look-up of its name included."""
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    found: list[bool] = []

    def connect() -> None:
        with suppress(OSError), socket.create_connection((parts.hostname or "", port), timeout=PATIENCE):
            found.append(True)

    # The look-up of a name has no time limit of its own.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(PATIENCE)
    return bool(found)
