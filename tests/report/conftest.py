from __future__ import annotations

import pytest

from sotglp import SOTGLP, Backbone
from sotglp.images.image_set import ImageSet
from support.report_samples import pictures
from support.samples import tiny_clip


@pytest.fixture(scope="session")
def images() -> ImageSet:
    return pictures()


@pytest.fixture(scope="session")
def model(images: ImageSet) -> SOTGLP:
    return SOTGLP(Backbone.from_open_clip(tiny_clip()), images.classes, n_local_prompts=2, top_k=5)
