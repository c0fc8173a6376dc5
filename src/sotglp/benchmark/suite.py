"""Suites: methods, datasets, numbers of shots and seeds of a benchmark, as YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sotglp.backbone_defaults import AUTO, choose_backbone, preset_for
from sotglp.errors import SotglpError, short_repr
from sotglp.files.packaged import packaged_names, read_packaged
from sotglp.methods.method import Method, find_method
from sotglp.settings import PatchAttention, Preset, Settings, checked, load_preset, presets

Protocol = Literal["few-shot", "base-to-new"]

SUITES = "benchmark/suites"
"""Folder of the suites that ship with sotglp."""

OWN_PRESET = "folder"


class BackboneChoice(Settings):
    """Arguments of :meth:`sotglp.Backbone.load` for the backbone of all methods."""

    name: str = AUTO
    pretrained: str = "auto"
    image_size: int | None = Field(None, ge=1)
    patch_attention: PatchAttention = "value"


class DatasetChoice(Settings):
    """A dataset of a suite, and the additional test sets of its models.

    Each source is a name from ``sotglp data list``, or a folder or manifest relative to the data root.

    Attributes
    ----------
    train, test : str or None
        Sources of labelled images; None for a known dataset.
    preset : str or None
        Preset to start from; None for the published one of that dataset, or else the one for own folders.
    ood : mapping
        Sources of out-of-distribution images, by name.
    shift : mapping
        Sources of images of the same classes in another style, by name.
    transfer : mapping
        Sources of images of other classes, by name.
    """

    train: str | None = None
    test: str | None = None
    preset: str | None = None
    ood: dict[str, str] = Field(default_factory=dict)
    shift: dict[str, str] = Field(default_factory=dict)
    transfer: dict[str, str] = Field(default_factory=dict)


class MethodChoice(Settings):
    """A method of a suite under a label, with settings that override the method's."""

    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    patch_attention: PatchAttention | None = None


class Suite(Settings):
    """Every method on every dataset with every number of shots and every seed."""

    name: str
    protocol: Protocol = "few-shot"
    backbone: BackboneChoice = BackboneChoice()
    datasets: dict[str, DatasetChoice]
    methods: dict[str, MethodChoice]
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: tuple[int, ...] = (1, 2, 3)
    settings: dict[str, Any] = Field(default_factory=dict)

    def method(self, label: str) -> Method:
        """Return the method of a label."""
        return find_method(self.methods[label].method)

    def preset(self, dataset: str) -> Preset:
        """Return the preset of a dataset, completed for the backbone and overridden by the settings of the suite."""
        chosen = self.datasets[dataset].preset or (dataset if dataset in presets() else OWN_PRESET)
        return preset_for(self.backbone.name, load_preset(chosen)).changed(self.settings)

    def changed(self, methods: Sequence[str] | None, shots: Sequence[int] | None, seeds: Sequence[int] | None) -> Suite:
        """Return the suite with other methods, by label in the suite or by name, numbers of shots, or seeds.

        Raises
        ------
        SotglpError
            If there is no such method, or it can't be used with the settings of the suite.
        """
        update: dict[str, Any] = {}
        if methods is not None:
            update["methods"] = {name: self.methods.get(name) or MethodChoice(method=name) for name in methods}
        if shots is not None:
            update["shots"] = tuple(dict.fromkeys(shots))
        if seeds is not None:
            update["seeds"] = tuple(dict.fromkeys(seeds))
        suite = self.model_copy(update=update)
        suite.check_methods()
        return suite

    def check_methods(self) -> None:
        """Raise a SotglpError for a method that doesn't exist or can't have the settings of the suite."""
        for label, choice in self.methods.items():
            method = self.method(label)
            method.check_backbone(self.backbone.name)
            for dataset in self.datasets:
                method.settings_on(self.preset(dataset), choice.settings)

    def resolved(self) -> Suite:
        """Return the suite with the architecture that a backbone ``auto`` stands for; see :func:`choose_backbone`."""
        name = choose_backbone(self.backbone.name, self.backbone.pretrained)
        return self.model_copy(update={"backbone": self.backbone.model_copy(update={"name": name})})


def suites() -> list[str]:
    """Return the names of the suites that ship with sotglp, sorted."""
    return packaged_names(SUITES)


def load_suite(name: str) -> Suite:
    """Load a suite by name, or from a YAML file.

    ``datasets`` and ``methods`` are lists of names, or mappings by name; an entry of ``methods`` contains settings,
    and ``method`` if its label is not the name of the method.
    """
    values = read_packaged(SUITES, "suite", name)
    if not isinstance(values, dict) or not values.get("datasets") or not values.get("methods"):
        raise SotglpError(f"the suite file {name} has no entries datasets and methods: add both")
    values = {"name": Path(name).stem, **values}
    values["datasets"] = {label: about or {} for label, about in _named(values["datasets"]).items()}
    values["methods"] = {label: _method_choice(label, about) for label, about in _named(values["methods"]).items()}
    suite = checked(Suite, values)
    suite.check_methods()
    return suite


def _named(entries: Any) -> dict[str, Any]:
    if isinstance(entries, dict):
        return {str(label): about for label, about in entries.items()}
    if isinstance(entries, list):
        return {str(label): None for label in entries}
    raise SotglpError(f"{short_repr(entries)} in the suite file is not a list of names or a mapping: write one")


def _method_choice(label: str, about: Any) -> dict[str, Any]:
    if not isinstance(about, dict | None):
        raise SotglpError(
            f"the entry {label} of methods in the suite file is {short_repr(about)}: write settings by name, or nothing"
        )
    settings = dict(about or {})
    return {
        "method": settings.pop("method", label),
        "patch_attention": settings.pop("patch_attention", None),
        "settings": settings,
    }
