"""A suite: which methods are compared on which datasets, with how many shots and which seeds, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sotglp.errors import SotglpError, short_repr
from sotglp.files.packaged import packaged_names, read_packaged
from sotglp.methods.method import Method, find_method
from sotglp.settings import PatchAttention, Preset, Settings, checked, load_preset, presets

Protocol = Literal["few-shot", "base-to-new"]

SUITES = "benchmark/suites"
"""Folder of the suites in the package."""

OWN_PRESET = "folder"


class BackboneChoice(Settings):
    """The backbone that all methods share; see :meth:`sotglp.Backbone.load`."""

    name: str = "ViT-B-16"
    pretrained: str = "auto"
    image_size: int | None = Field(None, ge=1)
    patch_attention: PatchAttention = "value"


class DatasetChoice(Settings):
    """A dataset of a suite, and what a model of it is tested on besides.

    Each place is the name of a dataset that ``sotglp data list`` knows, or a folder or manifest below the data root.

    Attributes
    ----------
    train, test : str or None
        Places of labelled images; None where the dataset is known by its name.
    preset : str or None
        Settings to start from; None for those published for a dataset of that name, or else for a folder of one's own.
    ood : mapping
        Places of images of no class, by name.
    shift : mapping
        Places of images of the same classes in another style, by name.
    transfer : mapping
        Places of images of other classes, by name, for cross-dataset tests.
    """

    train: str | None = None
    test: str | None = None
    preset: str | None = None
    ood: dict[str, str] = Field(default_factory=dict)
    shift: dict[str, str] = Field(default_factory=dict)
    transfer: dict[str, str] = Field(default_factory=dict)


class MethodChoice(Settings):
    """A method of a suite under a label of its own, with settings over the method's."""

    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    patch_attention: PatchAttention | None = None


class Suite(Settings):
    """What ``sotglp benchmark`` runs: every method on every dataset with every number of shots and every seed."""

    name: str
    protocol: Protocol = "few-shot"
    backbone: BackboneChoice = BackboneChoice()
    datasets: dict[str, DatasetChoice]
    methods: dict[str, MethodChoice]
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: tuple[int, ...] = (1, 2, 3)
    settings: dict[str, Any] = Field(default_factory=dict)

    def method(self, label: str) -> Method:
        """The method that a label stands for."""
        return find_method(self.methods[label].method)

    def preset(self, dataset: str) -> Preset:
        """Published settings of a dataset, with the suite's own over them."""
        chosen = self.datasets[dataset].preset or (dataset if dataset in presets() else OWN_PRESET)
        return load_preset(chosen).changed(self.settings)


def suites() -> list[str]:
    """Names of the suites that come with sotglp, sorted."""
    return packaged_names(SUITES)


def load_suite(name: str) -> Suite:
    """Read a suite by name, or from a YAML file of one's own.

    ``datasets`` and ``methods`` may be lists of names, or mappings with what belongs to each name; an entry under
    ``methods`` holds settings by name, and ``method`` where its label is not the method's name.

    Raises
    ------
    SotglpError
        If there is none of that name, or the file can't be used.
    """
    values = read_packaged(SUITES, "suite", name)
    if not isinstance(values, dict) or not values.get("datasets") or not values.get("methods"):
        raise SotglpError(f"the suite file {name} must hold the entries datasets and methods")
    values = {"name": Path(name).stem, **values}
    values["datasets"] = {label: about or {} for label, about in _named(values["datasets"]).items()}
    values["methods"] = {label: _method_choice(label, about) for label, about in _named(values["methods"]).items()}
    suite = checked(Suite, values)
    for label in suite.methods:
        suite.method(label)
        for dataset in suite.datasets:
            suite.method(label).settings_on(suite.preset(dataset), suite.methods[label].settings)
    return suite


def _named(entries: Any) -> dict[str, Any]:
    if isinstance(entries, dict):
        return {str(label): about for label, about in entries.items()}
    if isinstance(entries, list):
        return {str(label): None for label in entries}
    raise SotglpError(f"{short_repr(entries)} in the suite file is neither a list of names nor a mapping")


def _method_choice(label: str, about: Any) -> dict[str, Any]:
    if not isinstance(about, dict | None):
        raise SotglpError(
            f"the entry {label} under methods holds {short_repr(about)}: write settings by name there, or nothing"
        )
    settings = dict(about or {})
    return {
        "method": settings.pop("method", label),
        "patch_attention": settings.pop("patch_attention", None),
        "settings": settings,
    }
