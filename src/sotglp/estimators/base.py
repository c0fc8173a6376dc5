"""A fitted few-shot model as a scikit-learn estimator: fit, save, load, and changes of its classes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.backbone_defaults import choose_backbone
from sotglp.errors import SotglpError
from sotglp.estimators.inputs import is_frame, labelled, names_of, renamed_labels, unlabelled
from sotglp.features.view_cache import ViewCache
from sotglp.images.check import readable_images, warn_of_two_labels
from sotglp.images.labels import label_text, warn_of_names
from sotglp.methods.base import AdaptedModel
from sotglp.model_file.load import load_model
from sotglp.model_file.record import ModelRecord
from sotglp.model_file.save import save_model
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.choice import Choice
from sotglp.scoring.choose_method import choose_settings
from sotglp.scoring.recalibrate import ClassChange, recalibrate
from sotglp.settings import PatchAttention, Precision, Settings, TrainConfig, checked
from sotglp.training.callbacks import TrainingCallback
from sotglp.training.chance import warn_near_chance
from sotglp.training.class_changes import renamed, with_class, without_class
from sotglp.training.fit import adapt, drawn_shots


class FewShotEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of the classifiers, whatever their method."""

    backbone: str | Backbone
    pretrained: str | os.PathLike[str] | None
    image_size: int | None
    patch_attention: PatchAttention
    device: str
    precision: Precision
    workers: int
    cache_dir: str | os.PathLike[str] | None
    verbose: bool
    class_names: Mapping[Any, str] | Sequence[str] | None

    model_: AdaptedModel
    classes_: NDArray[Any]
    history_: list[dict[str, float]]
    calibration_: Calibration | None
    choices_: tuple[Choice, ...]

    def fit(self, X: Any, y: ArrayLike | None = None, *, callbacks: Sequence[TrainingCallback] = ()) -> Self:
        """Fit the model to labelled images.

        Parameters
        ----------
        X : images
            See the class.
        y : array-like or None
            Label of each image, text or whole numbers; None if X is a labelled folder, manifest or data frame.
        callbacks : sequence of TrainingCallback
            Told the result of each epoch, such as :class:`sotglp.training.trackers.TensorBoard`.

        Raises
        ------
        SotglpError
            If images, labels or parameters can't be used.
        """
        name = self._backbone_name()
        candidates = self._candidates(name)
        _, config = next(iter(candidates.values()))
        images, labels = labelled(X, y)
        self.classes_ = np.unique(labels)
        names = names_of(self.classes_, self.class_names)
        warn_of_names(names)
        images = renamed_labels(images, dict(zip(map(label_text, self.classes_), names, strict=True)))
        backbone = self._load_backbone(name)
        warn_of_two_labels(drawn_shots(images, config))
        cache = ViewCache(self._cache_dir())
        is_open = len(candidates) > 1 or self._rate_is_open
        model_config, config, choices = choose_settings(
            backbone,
            readable_images(drawn_shots(images, config)) if is_open else images,
            candidates,
            rate_is_open=self._rate_is_open,
            cache_dir=cache,
            show_progress=self.verbose,
        )
        fitted = adapt(
            backbone,
            images,
            model_config,
            config,
            classes=names,
            cache_dir=cache,
            show_progress=self.verbose,
            callbacks=callbacks,
        )
        self.model_, self.history_ = fitted.model, fitted.history
        self.calibration_, self.choices_ = None, choices
        warn_near_chance(fitted, config)
        return self

    def add_class(self, name: str | int, images: Any, others: Any = None, *, epochs: int | None = None) -> Self:
        """Add a class, which becomes the last of ``classes_``.

        The model is fitted again on its images and those of the others, and a calibration is repeated on the stored
        shots; see :func:`sotglp.training.class_changes.with_class` and
        :func:`sotglp.scoring.recalibrate.recalibrate`.

        Parameters
        ----------
        name : str or int
            Label of the new class.
        images : images
            Its images; see the class.
        others : path or (images, labels), default None
            Labelled images of existing classes in place of the shots that the model stores: the path of a labelled
            folder or manifest, or a pair.
        epochs : int or None, default None
            Passes over the images; None for those of the fit.

        Raises
        ------
        SotglpError
            If the class exists, the method can't learn a class alone, or images or ``epochs`` can't be used.
        """
        check_is_fitted(self, "model_")
        self._check_label(name)
        checked(TrainConfig, {"epochs": epochs})
        if others is not None:
            others, _ = labelled(
                *((others, None) if isinstance(others, str | os.PathLike) or is_frame(others) else others)
            )
            others = renamed_labels(others, self._names())
        model = with_class(
            self.model_,
            label_text(name),
            unlabelled(images),
            self._fitted_training(),
            others=others,
            epochs=epochs,
            cache_dir=self._cache_dir(),
            show_progress=self.verbose,
        )
        self.history_ = []  # of the fit before
        return self._change(model, None, [*self.classes_.tolist(), name])

    def remove_class(self, name: str | int) -> Self:
        """Remove a class; see :func:`sotglp.training.class_changes.without_class`."""
        check_is_fitted(self, "model_")
        model = without_class(self.model_, self._name_of(name))
        change = ClassChange.removing(self._name_of(name))
        labels = [label for label in self.classes_.tolist() if label_text(label) != label_text(name)]
        return self._change(model, change, labels)

    def rename_class(self, old: str | int, new: str | int) -> Self:
        """Rename a class; see :func:`sotglp.training.class_changes.renamed`."""
        check_is_fitted(self, "model_")
        self._check_label(new)
        model = renamed(self.model_, self._name_of(old), label_text(new))
        labels = self.classes_.tolist()
        change = ClassChange.renaming(self._name_of(old), label_text(new))
        return self._change(model, change, [new if label_text(label) == label_text(old) else label for label in labels])

    def save(self, path: str | os.PathLike[str], *, force: bool = False, include_backbone: bool = False) -> None:
        """Write the model to one safetensors file; see :func:`sotglp.model_file.save.save_model`."""
        check_is_fitted(self, "model_")
        save_model(
            Path(path),
            self.model_,
            classes=self.classes_.tolist(),
            training=self._fitted_training(),
            history=self.history_,
            calibration=self.calibration_,
            choices=self.choices_,
            include_backbone=include_backbone,
            force=force,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Backbone | None = None,
        pretrained: str | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a file that :meth:`save` or ``sotglp fit`` wrote; see :func:`sotglp.model_file.load.load_model`."""
        model, record, calibration = load_model(
            Path(path), backbone=backbone, pretrained=pretrained, device=choose_device(device)
        )
        estimator = cls._from_record(model, record, device)
        estimator.classes_ = np.asarray(record.classes)
        estimator.model_, estimator.history_, estimator.calibration_ = model, record.history, calibration
        estimator.choices_ = record.choices
        if list(model.class_names) != [label_text(label) for label in record.classes]:
            estimator.class_names = dict(zip(record.classes, model.class_names, strict=True))
        return estimator

    @abstractmethod
    def _settings(self, backbone: str) -> tuple[Settings, TrainConfig]:
        """Settings of model and training on a backbone."""

    def _candidates(self, backbone: str) -> Mapping[str, tuple[Settings, TrainConfig]]:
        """Settings by method, the preferred one first, of which held-out shots choose one if there are several."""
        return {"": self._settings(backbone)}

    @property
    @abstractmethod
    def _rate_is_open(self) -> bool:
        """Whether held-out shots choose the learning rate."""

    @classmethod
    @abstractmethod
    def _from_record(cls, model: AdaptedModel, record: ModelRecord, device: str) -> Self:
        """Build an estimator with the parameters of a model file."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _names(self) -> dict[str, str]:
        """Names of the classes by their labels as text."""
        return dict(zip(map(label_text, self.classes_), self.model_.class_names, strict=True))

    def _name_of(self, label: Any) -> str:
        return self._names().get(label_text(label), label_text(label))

    def _check_label(self, name: str | int) -> None:
        """Reject a label of another type than the others: text among numbers would turn them all into text."""
        labels = self.classes_.tolist()
        if type(np.asarray(name).item()) not in {type(label) for label in labels}:
            raise SotglpError(f"the label {name!r} has another type than the others, such as {labels[0]!r}")

    def _change(self, model: AdaptedModel, change: ClassChange | None, labels: list[Any]) -> Self:
        training = self._fitted_training()
        again = recalibrate(
            self.calibration_,
            self.model_,
            model,
            change,
            training,
            cache_dir=self._cache_dir(),
            show_progress=self.verbose,
        )
        self.model_, self.calibration_ = model, again.calibration
        self.classes_ = np.asarray(labels, dtype=object if self.classes_.dtype == object else None)
        return self

    def _fitted_training(self) -> TrainConfig:
        """Settings of training on the backbone of the fitted model, with the learning rate that was chosen."""
        candidates = self._candidates(self.model_.backbone.name)
        chosen = {choice.setting: choice.chosen for choice in self.choices_}
        config = candidates[chosen["method"] if chosen.get("method") in candidates else next(iter(candidates))][1]
        rate = chosen.get("learning_rate") if self._rate_is_open else None
        return config if rate is None else config.model_copy(update={"learning_rate": float(rate)})

    def _backbone_name(self) -> str:
        if isinstance(self.backbone, Backbone):
            return self.backbone.name
        return choose_backbone(self.backbone, self.pretrained)

    def _load_backbone(self, name: str) -> Backbone:
        device = choose_device(self.device)
        if isinstance(self.backbone, Backbone):
            return self.backbone.to(device)
        return Backbone.load(
            name,
            self.pretrained,
            image_size=self.image_size,
            device=device,
            patch_attention=self.patch_attention,
        )

    def _cache_dir(self) -> Path | None:
        return None if self.cache_dir is None else Path(self.cache_dir)
