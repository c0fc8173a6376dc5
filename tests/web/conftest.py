from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from support.web_server import client, make_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model; its training images are beside it in train."""
    return make_model(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def shared(model: Path) -> Iterator[TestClient]:
    """A client for tests that change no class."""
    with client(model) as own:
        yield own
