from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sotglp import Backbone, SotglpError
from sotglp.images.image_set import ImageSet
from sotglp.scoring.choice import Choice, choose
from sotglp.scoring.kept_choices import KeptChoices
from sotglp.settings import ModelConfig, TrainConfig
from support.samples import coloured_image, tiny_clip

CHOICE = choose("method", {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 0.5])}, "a")


class Chooser:
    """Counts how often it was asked."""

    def __init__(self, file: Path, *, resume: bool = True) -> None:
        self._kept = KeptChoices(file, resume=resume)
        self._backbone = Backbone.from_open_clip(tiny_clip())
        self.n_asked = 0

    def get(self, shade: int = 9, learning_rate: float = 0.1, score: str = "knn") -> Choice:
        rng = np.random.default_rng(0)
        images = ImageSet.from_items([coloured_image(rng, (own, 0, 0)) for own in (shade, 200)], ["a", "b"])
        candidates = {"sot-glp": (ModelConfig(top_k=3), TrainConfig(learning_rate=learning_rate))}
        return self._kept.get("method", self._backbone, images, candidates, self._choose, score=score)

    def _choose(self) -> Choice:
        self.n_asked += 1
        return CHOICE


def test_a_resumed_run_finds_the_choice_of_the_same_shots_and_settings(tmp_path: Path) -> None:
    first, resumed = (Chooser(tmp_path / "m.choices") for _ in range(2))
    assert first.get() == CHOICE
    resumed = Chooser(tmp_path / "m.choices")
    assert resumed.get() == CHOICE
    assert (first.n_asked, resumed.n_asked) == (1, 0)
    for changed in ({"shade": 10}, {"learning_rate": 0.2}, {"score": "mcm"}):
        resumed.get(**changed)  # type: ignore[arg-type]
    assert resumed.n_asked == 3
    # All of them are kept.
    again = Chooser(tmp_path / "m.choices")
    again.get()
    again.get(shade=10)
    assert again.n_asked == 0


def test_a_new_run_chooses_again(tmp_path: Path) -> None:
    Chooser(tmp_path / "m.choices").get()
    new = Chooser(tmp_path / "m.choices", resume=False)
    new.get()
    assert new.n_asked == 1


@pytest.mark.parametrize("content", ["", "{", '{"0": {"setting": "method"}}'])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "m.choices").write_text(content)
    with pytest.raises(SotglpError, match=r"m\.choices is damaged.*--force"):
        KeptChoices(tmp_path / "m.choices", resume=True)
