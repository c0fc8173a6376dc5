"""A hub on this computer, and a small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sotglp import SOTGLPClassifier
from support.estimators import QUICK
from support.hub_server import TOKEN, Hub, local_hub
from support.samples import make_class_folders


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with local_hub() as found:
        # What the client reads from the environment when it is imported.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", found.endpoint)
        template = f"{found.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_class_folders(tmp_path_factory.mktemp("hub_model") / "train")


@pytest.fixture(scope="session")
def fitted(photos: Path) -> SOTGLPClassifier:
    """A calibrated classifier; tests don't change it."""
    return SOTGLPClassifier("tiny", **QUICK).fit(photos).calibrate(photos)
