"""A method of adaptation as data: a kind of model, and what differs from its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sotglp.methods.base import AdaptedModel
from sotglp.settings import Preset, Settings, TrainConfig, check_names, checked


@dataclass(frozen=True)
class Method:
    """A way to adapt a backbone to classes.

    Attributes
    ----------
    name : str
        As suites and tables spell it.
    title : str
        As papers spell it.
    source : str
        Where it was published.
    model : type
        The kind of model.
    settings : mapping
        What differs from the defaults of that kind.
    training : mapping
        What differs from the published training of SOT-GLP.
    uses_shots : bool
        False for a method that looks at no labelled image, so that neither shots nor seeds change it.
    """

    name: str
    title: str
    source: str
    model: type[AdaptedModel]
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    uses_shots: bool = True

    def settings_on(self, preset: Preset, changes: Mapping[str, Any]) -> tuple[Settings, TrainConfig]:
        """Settings of model and training on a dataset.

        The preset of the dataset says what the method knows of it, the method what makes it that method, and
        ``changes`` come last.

        Raises
        ------
        SotglpError
            If there is no setting of a name in ``changes``, or its value can't be used.
        """
        fields = self.model.Config.model_fields
        check_names(changes, {*fields, *TrainConfig.model_fields})
        told = {**preset.model.model_dump(), "zero_shot_template": preset.zero_shot_template}
        from_preset = {name: value for name, value in told.items() if name in fields}
        own = {name: value for name, value in changes.items() if name not in TrainConfig.model_fields}
        of_training = {name: value for name, value in changes.items() if name in TrainConfig.model_fields}
        return (
            checked(self.model.Config, {**from_preset, **self.settings, **own}),
            checked(TrainConfig, {**preset.training.model_dump(), **self.training, **of_training}),
        )
