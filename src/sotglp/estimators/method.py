"""Any method of the library as a scikit-learn classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Self

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import AUTO, preset_for
from sotglp.errors import SotglpError
from sotglp.estimators.classifier import ImageClassifier
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import METHODS, Method, candidates_on, find_method
from sotglp.model_file.record import ModelRecord
from sotglp.settings import PatchAttention, Precision, Settings, TrainConfig, load_preset

OWN_PARAMETERS = ("shots", "precision", "workers", "seed")
"""Training settings that are parameters of the classifier."""


class MethodClassifier(ImageClassifier):
    """A few-shot classifier by any method of the library, with the interface of :class:`SOTGLPClassifier`.

    Parameters
    ----------
    method : str, default "coop"
        One of :data:`sotglp.methods.method.METHODS`, such as ``"tip-adapter"``, ``"plot"`` or ``"linear-probe"``, or
        ``"auto"``: chosen on held-out shots; see :func:`sotglp.scoring.choose_method.choose_method`.
    backbone, pretrained, image_size, patch_attention, device
        See :class:`SOTGLPClassifier`.
    preset : str, default "folder"
        Base settings: the name of a preset, or a YAML file. Settings of training that it doesn't name come with the
        backbone.
    settings : mapping or None, default None
        Settings of the model and the training by name, which override those of preset and method; not those that are
        parameters of the classifier, such as ``shots``. A ``learning_rate`` of ``"auto"`` is chosen on held-out shots;
        see :class:`SOTGLPClassifier`.
    shots : int or None, default 16
        Images drawn from each class; None takes all.
    precision, workers, cache_dir, seed, verbose, class_names
        See :class:`SOTGLPClassifier`.

    Attributes
    ----------
    classes_, model_, history_, calibration_
        See :class:`SOTGLPClassifier`; ``history_`` is empty for a method without training.
    choices_ : tuple of Choice
        What held-out shots chose, and the evidence; empty unless the method or the learning rate is ``"auto"``.
    """

    def __init__(
        self,
        method: str = "coop",
        backbone: str | Backbone = "auto",
        pretrained: str | os.PathLike[str] | None = "auto",
        *,
        image_size: int | None = None,
        patch_attention: PatchAttention = "value",
        device: str = "auto",
        preset: str = "folder",
        settings: Mapping[str, Any] | None = None,
        shots: int | None = 16,
        precision: Precision = "auto",
        workers: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        seed: int = 1,
        verbose: bool = False,
        class_names: Mapping[Any, str] | Sequence[str] | None = None,
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.pretrained = pretrained
        self.image_size = image_size
        self.patch_attention = patch_attention
        self.device = device
        self.preset = preset
        self.settings = settings
        self.shots = shots
        self.precision = precision
        self.workers = workers
        self.cache_dir = cache_dir
        self.seed = seed
        self.verbose = verbose
        self.class_names = class_names

    def _settings(self, backbone: str) -> tuple[Settings, TrainConfig]:
        return next(iter(self._candidates(backbone).values()))

    def _candidates(self, backbone: str) -> Mapping[str, tuple[Settings, TrainConfig]]:
        own = {name: getattr(self, name) for name in OWN_PARAMETERS}
        settings = dict(self.settings or {})
        if self._rate_is_open:
            del settings["learning_rate"]
        for name in OWN_PARAMETERS:
            if name in settings:
                raise SotglpError(f"{name} is a parameter of the classifier: give it as such, not in settings")
        preset, changes = preset_for(backbone, load_preset(self.preset)), {**settings, **own}
        if self.method == AUTO:
            return candidates_on(backbone, preset, changes)
        method = find_method(self.method)
        method.check_backbone(backbone)
        return {self.method: method.settings_on(preset, changes)}

    @property
    def _rate_is_open(self) -> bool:
        return (self.settings or {}).get("learning_rate") == AUTO

    @classmethod
    def _from_record(cls, model: AdaptedModel, record: ModelRecord, device: str) -> Self:
        training = (record.training or TrainConfig()).model_dump()
        own = {name: training.pop(name) for name in OWN_PARAMETERS}
        settings = {**record.model.model_dump(), **training}
        return cls(
            _infer_method(model, settings),
            model.backbone,
            model.backbone.pretrained,
            patch_attention=model.backbone.patch_attention,
            device=device,
            settings=settings,
            **own,
        )


def _infer_method(model: AdaptedModel, settings: Mapping[str, Any]) -> str:
    """The method, among those of the model's kind, with the most settings in common: files store only the kind."""

    def agreement(method: Method) -> int:
        own = {**method.settings, **method.training}
        return sum(1 if settings[name] == value else -1 for name, value in own.items())

    return max((method for method in METHODS.values() if method.kind == model.kind), key=agreement).name
