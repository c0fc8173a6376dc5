"""Fixtures that the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from sotglp import Backbone
from sotglp.images.image_set import ImageSet
from support.samples import REFERENCE_CASES, Reference, load_reference, make_class_folders, tiny_clip


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's caches of features and of weights, not even by a command in a process."""
    hub = str(tmp_path_factory.mktemp("hub"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOTGLP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_CACHE", hub)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", hub)
        yield


@pytest.fixture(params=REFERENCE_CASES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return load_reference(request.param)


@pytest.fixture
def tiny_backbone() -> Backbone:
    return Backbone.from_open_clip(tiny_clip())


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    return make_class_folders(tmp_path / "train")


@pytest.fixture
def images(class_folders: Path) -> ImageSet:
    return ImageSet.from_path(class_folders)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images go through the backbone, batch by batch."""
    sizes: list[int] = []
    encode = Backbone.encode_image

    def noted(self: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(Backbone, "encode_image", noted)
    return sizes
