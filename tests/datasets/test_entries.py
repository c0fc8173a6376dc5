from pathlib import Path

import pytest

from sotglp import datasets
from sotglp.errors import SotglpError
from sotglp.settings import presets


def test_names_by_role():
    assert datasets.names() == list(datasets.ENTRIES)
    assert datasets.names("few-shot") == [
        "imagenet",
        "caltech101",
        "oxford_pets",
        "stanford_cars",
        "flowers102",
        "food101",
        "fgvc_aircraft",
        "sun397",
        "dtd",
        "eurosat",
        "ucf101",
    ]
    assert set(presets()) == {*datasets.names("few-shot"), "folder"}
    roles = [entry.role for entry in datasets.ENTRIES.values()]
    assert roles == sorted(roles, key=["few-shot", "shift", "ood"].index)
    assert len(datasets.names("shift")) + len(datasets.names("ood")) + 11 == len(datasets.ENTRIES)


def test_names_and_folders_are_each_its_own():
    assert all(entry.name == name for name, entry in datasets.ENTRIES.items())
    assert len({entry.folder for entry in datasets.ENTRIES.values()}) == len(datasets.ENTRIES)


def test_every_entry_says_what_people_need():
    for entry in datasets.ENTRIES.values():
        assert entry.source.startswith("https://")
        assert entry.terms
        assert entry.layout
        assert not entry.terms.endswith(".")
        assert "test" in entry.counts
        assert ("train" in entry.counts) == (entry.role == "few-shot")


def test_find():
    assert datasets.find("dtd").title.startswith("Describable Textures")
    with pytest.raises(SotglpError, match=r"^there is no dataset 'oxford_pet' \(did you mean oxford_pets\?\): choose"):
        datasets.find("oxford_pet")
    with pytest.raises(SotglpError, match=r"^there is no dataset '123': choose one of imagenet, caltech101, .*"):
        datasets.find("123")


def test_the_data_root(monkeypatch):
    monkeypatch.delenv("SOTGLP_DATA", raising=False)
    assert datasets.data_root() == Path("data")
    monkeypatch.setenv("SOTGLP_DATA", "/mine")
    assert datasets.data_root() == Path("/mine")
    assert datasets.data_root(Path("here")) == Path("here")
    monkeypatch.setenv("SOTGLP_DATA", "")
    assert datasets.data_root(None) == Path("data")
