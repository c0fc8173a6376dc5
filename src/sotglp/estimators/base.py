"""What every classifier of the library does, by scikit-learn's contract; which method it has is its own affair."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.console.output import UNKNOWN
from sotglp.errors import SotglpError, SotglpWarning
from sotglp.explain.explanation import Explanation, explain
from sotglp.images.decode import IMAGE_SUFFIXES
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import label_array, label_text
from sotglp.images.manifest import MANIFEST_SUFFIXES
from sotglp.methods.base import AdaptedModel
from sotglp.model_file.load import load_model
from sotglp.model_file.record import ModelRecord
from sotglp.model_file.save import save_model
from sotglp.scoring.calibration import Calibration, calibrate_crossed, calibrate_held_out
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.predict import Predictions, predict, predict_each
from sotglp.settings import InferenceConfig, OodMethod, PatchAttention, Precision, Settings, TrainConfig, checked
from sotglp.training.class_changes import renamed, with_class, without_class
from sotglp.training.fit import adapt, drawn_shots


class ImageClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Few-shot image classifier with out-of-distribution scores, whatever its method.

    Images (X) are paths, PIL images, or a tensor (B, 3, H, W): uint8 pixels are preprocessed like photos, floats are
    taken as preprocessed by the backbone already. X may also be one path: of a folder with a folder for each class or
    of a manifest, which needs no y in :meth:`fit`; elsewhere of any folder of images, a manifest, or one image.
    """

    backbone: str | Backbone
    pretrained: str | os.PathLike[str] | None
    image_size: int | None
    patch_attention: PatchAttention
    device: str
    precision: Precision
    workers: int
    cache_dir: str | os.PathLike[str] | None
    verbose: bool

    model_: AdaptedModel

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Learn prompts from labelled images.

        Parameters
        ----------
        X : images
            See the class.
        y : array-like or None
            Label of each image, strings or whole numbers; None where X is a labelled folder or manifest.

        Raises
        ------
        SotglpError
            If images, labels or parameters can't be used.
        """
        model_config, config = self._settings()
        images, labels = _labelled(X, y)
        self.classes_ = np.unique(labels)
        fitted = adapt(
            self._load_backbone(),
            images,
            model_config,
            config,
            classes=[label_text(label) for label in self.classes_],
            cache_dir=None if self.cache_dir is None else Path(self.cache_dir),
            show_progress=self.verbose,
        )
        self.model_, self.history_ = fitted.model, fitted.history
        self.calibration_: Calibration | None = None
        return self

    def predict(self, X: Any, *, reject: bool = True) -> NDArray[Any]:
        """Most probable label of each image; once calibrated, "unknown" for those below the threshold, (B,).

        Parameters
        ----------
        X : images
            See the class.
        reject : bool, default True
            Call images unknown, if :meth:`calibrate` has run; otherwise every image gets a label.
        """
        said = self._calibrated_predictions(X)
        labels: NDArray[Any] = self.classes_[said.probabilities.argmax(axis=1)]
        if not reject or self.calibration_ is None:
            return labels
        rejected = self.calibration_.rejects(said.ood_scores)
        # Numbers and text don't go together in one array; neither may a short text type cut "unknown" off.
        labels = labels.astype(np.result_type(labels, np.asarray(UNKNOWN)) if labels.dtype.kind == "U" else object)
        labels[rejected] = UNKNOWN
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probability of each class, in the order of ``classes_``, at the calibrated temperature, (B, C)."""
        probabilities = self._calibrated_predictions(X).probabilities
        return probabilities if self.calibration_ is None else self.calibration_.probabilities(probabilities)

    def predict_sets(self, X: Any, coverage: float = 0.9) -> NDArray[np.bool_]:
        """Classes that come into question for each image, in the order of ``classes_``, (B, C).

        Parameters
        ----------
        X : images
            See the class.
        coverage : float, default 0.9
            Share of images whose true class should be in the set, between 0 and 1. A set may be empty. See
            :mod:`sotglp.scoring.conformal` for the guarantee.

        Raises
        ------
        SotglpError
            If :meth:`calibrate` has not run with labels.
        """
        calibration = self._known_calibration()
        models = [self.model_, *calibration.fold_models]
        said = predict_each(models, _unlabelled(X), self._inference_config(), score_all=False)
        return calibration.sets(np.stack([one.probabilities for one in said]), coverage)

    def explain(self, image: Any, classes: Sequence[str] | int = 1) -> Explanation:
        """Which patches of one image each local prompt of some classes took; ``.plot()`` draws it.

        Parameters
        ----------
        image : path, PIL image or tensor
            One image; a tensor is (3, H, W).
        classes : sequence of labels or int, default 1
            Classes to explain, or how many of the most probable ones.

        Raises
        ------
        SotglpError
            If the method has no transport plan, there is no such class, or the image can't be read.
        """
        check_is_fitted(self, "model_")
        wanted = classes if isinstance(classes, int) else [label_text(label) for label in classes]
        calibration = self.calibration_
        inference = (
            self._inference_config(calibration.ood_method, calibration.ood_temperature)
            if calibration
            else self._inference_config()
        )
        return explain(self.model_, image, wanted, inference, calibration)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of images whose most probable label is right; none is called unknown."""
        return float(accuracy_score(label_array(y), self.predict(X, reject=False), sample_weight=sample_weight))

    def ood_score(self, X: Any, method: OodMethod = "gl-mcm", temperature: float = 1.0) -> NDArray[np.float32]:
        """Score of each image, larger for those more like the classes, (B,); see :func:`sotglp.ood.score`."""
        return self._predictions(X, method, temperature).ood_scores

    def calibrate(
        self,
        X: Any,
        tpr: float = 0.95,
        method: OodMethod = "gl-mcm",
        temperature: float = 1.0,
        *,
        y: ArrayLike | None = None,
        folds: int | None = None,
    ) -> Self:
        """Learn from images of the classes when to say "unknown", how sure to be, and which sets to give.

        ``calibration_.rejection`` tells the threshold, the share of images of the classes that passes on average, and
        the interval where the true share lies in 90 % of cases: it is wide for few images.

        Parameters
        ----------
        X : images
            Images of the classes that were not trained on, or with ``folds`` those that were.
        tpr : float, default 0.95
            Share of images of the classes that should pass, above 0 and at most 1.
        method, temperature
            Score of the threshold; see :func:`sotglp.ood.score`.
        y : array-like or None, default None
            Labels of X, of the kind that :meth:`fit` takes; not needed where X is a labelled folder or manifest. They
            set the temperature of probabilities and make prediction sets possible.
        folds : int or None, default None
            Judge the few-shot images themselves: a model for each of so many folds learns from the others, which
            takes so many more fits.

        Raises
        ------
        SotglpError
            If ``tpr``, images or labels can't be used, or a class has fewer images than there are folds.
        """
        check_is_fitted(self, "model_")
        images = _maybe_labelled(X, y)
        inference = self._inference_config(method, temperature)
        if images.labels is None or folds is None:
            if folds is not None:
                raise SotglpError("folds need labels: give y, or a folder with a folder for each class")
            self.calibration_ = calibrate_held_out(self.model_, images, inference, tpr)
            return self
        config = self._settings()[1]
        shots = drawn_shots(images, config)
        cache_dir = None if self.cache_dir is None else Path(self.cache_dir)
        crossed = cross_fit(self.model_, shots, config, inference, n_folds=folds, cache_dir=cache_dir)
        self.calibration_ = calibrate_crossed(crossed, shots, inference, tpr)
        return self

    def is_ood(self, X: Any) -> NDArray[np.bool_]:
        """Whether each image scores below the calibrated threshold, (B,).

        Raises
        ------
        SotglpError
            If :meth:`calibrate` has not run.
        """
        calibration = self._known_calibration()
        return calibration.rejects(self._calibrated_predictions(X).ood_scores)

    def add_class(self, name: str | int, images: Any, others: Any = None, *, epochs: int | None = None) -> Self:
        """Learn one class more, the last of ``classes_``; what was learned for the others stays as it is.

        Parameters
        ----------
        name : str or int
            Label of the new class.
        images : images
            Images of it; see the class.
        others : path or (images, labels), default None
            Labelled images of old classes, which keep the new one from taking theirs: one path of a labelled folder or
            manifest, or a pair.
        epochs : int or None, default None
            Passes over the images; None for few steps without ``others``, see
            :func:`sotglp.training.class_changes.with_class`.

        Raises
        ------
        SotglpError
            If there is such a class already, the method can't learn a class alone, or images or ``epochs`` can't be
            used.
        """
        check_is_fitted(self, "model_")
        self._check_label(name)
        config = checked(TrainConfig, self._settings()[1].model_dump() | {"epochs": epochs})
        if others is not None:
            others, _ = _labelled(*((others, None) if isinstance(others, str | os.PathLike) else others))
        model = with_class(
            self.model_,
            label_text(name),
            _unlabelled(images),
            config,
            others=others,
            cache_dir=None if self.cache_dir is None else Path(self.cache_dir),
            show_progress=self.verbose,
        )
        return self._change(model, [*self.classes_.tolist(), name])

    def remove_class(self, name: str | int) -> Self:
        """Forget a class; see :func:`sotglp.training.class_changes.without_class`."""
        check_is_fitted(self, "model_")
        model = without_class(self.model_, label_text(name))
        return self._change(model, [label for label in self.classes_.tolist() if label_text(label) != label_text(name)])

    def rename_class(self, old: str | int, new: str | int) -> Self:
        """Call a class otherwise; see :func:`sotglp.training.class_changes.renamed`."""
        check_is_fitted(self, "model_")
        self._check_label(new)
        model = renamed(self.model_, label_text(old), label_text(new))
        labels = self.classes_.tolist()
        return self._change(model, [new if label_text(label) == label_text(old) else label for label in labels])

    def save(self, path: str | os.PathLike[str], *, force: bool = False, include_backbone: bool = False) -> None:
        """Write one safetensors file with what was learned.

        Parameters
        ----------
        path : path
            Where the file goes.
        force : bool, default False
            Replace an existing file.
        include_backbone : bool, default False
            Put the backbone's weights in too; otherwise the file names them and holds their fingerprint.

        Raises
        ------
        SotglpError
            If the file exists and ``force`` is off, or can't be written.
        """
        check_is_fitted(self, "model_")
        save_model(
            Path(path),
            self.model_,
            classes=self.classes_.tolist(),
            training=self._settings()[1],
            history=self.history_,
            calibration=self.calibration_,
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
        """Read what :meth:`save` or ``sotglp fit`` wrote.

        Parameters
        ----------
        path : path
            The model file.
        backbone : Backbone or None
            A backbone at hand; None loads the one that the file names.
        pretrained : str or None
            Tag or file with the backbone's weights, if not the place that the file names.
        device : str, default "auto"
            Where a loaded backbone goes.

        Raises
        ------
        SotglpError
            If the file can't be read, or the weights are not those that it was trained on.
        """
        model, record, calibration = load_model(
            Path(path), backbone=backbone, pretrained=pretrained, device=choose_device(device)
        )
        classifier = cls._from_record(model, record, device)
        classifier.classes_ = np.asarray(record.classes)
        classifier.model_, classifier.history_ = model, record.history
        classifier.calibration_ = calibration
        return classifier

    @abstractmethod
    def _settings(self) -> tuple[Settings, TrainConfig]:
        """Settings of model and training."""

    @classmethod
    @abstractmethod
    def _from_record(cls, model: AdaptedModel, record: ModelRecord, device: str) -> Self:
        """An estimator with the parameters that a model file tells."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _check_label(self, name: str | int) -> None:
        """Refuse a label of another kind than the others: text among numbers would turn them all into text."""
        labels = self.classes_.tolist()
        if type(np.asarray(name).item()) not in {type(label) for label in labels}:
            raise SotglpError(f"the label {name!r} is of another kind than the others, such as {labels[0]!r}")

    def _change(self, model: AdaptedModel, labels: list[Any]) -> Self:
        """Go on with a model of other classes."""
        self.model_ = model
        self.classes_ = np.asarray(labels, dtype=object if self.classes_.dtype == object else None)
        self._forget_calibration()
        return self

    def _forget_calibration(self) -> None:
        if self.calibration_ is not None:
            warnings.warn(
                "the calibration is gone, since classes changed: calibrate again", SotglpWarning, stacklevel=4
            )
        self.calibration_ = None

    def _known_calibration(self) -> Calibration:
        check_is_fitted(self, "model_")
        if self.calibration_ is None:
            raise SotglpError("there is no threshold yet: call calibrate(X) with images of the classes first")
        return self.calibration_

    def _load_backbone(self) -> Backbone:
        device = choose_device(self.device)
        if isinstance(self.backbone, Backbone):
            return self.backbone.to(device)
        return Backbone.load(
            self.backbone,
            self.pretrained,
            image_size=self.image_size,
            device=device,
            patch_attention=self.patch_attention,
        )

    def _inference_config(self, method: OodMethod = "gl-mcm", temperature: float = 1.0) -> InferenceConfig:
        return checked(
            InferenceConfig,
            {
                "workers": self.workers,
                "precision": self.precision,
                "ood_method": method,
                "temperature": temperature,
                "show_progress": self.verbose,
            },
        )

    def _predictions(self, X: Any, method: OodMethod = "gl-mcm", temperature: float = 1.0) -> Predictions:
        check_is_fitted(self, "model_")
        return predict(self.model_, _unlabelled(X), self._inference_config(method, temperature))

    def _calibrated_predictions(self, X: Any) -> Predictions:
        """Predictions with the score that the calibration, if there is one, is for."""
        check_is_fitted(self, "model_")
        if self.calibration_ is None:
            return self._predictions(X)
        return self._predictions(X, self.calibration_.ood_method, self.calibration_.ood_temperature)


def _labelled(X: Any, y: ArrayLike | None) -> tuple[ImageSet, NDArray[Any]]:
    """Images with labels as text, and the labels as they were given."""
    if y is None:
        if not isinstance(X, str | os.PathLike):
            raise SotglpError("fit needs labels y, or one path of a labelled folder or manifest as X")
        images = ImageSet.from_path(X)
        if images.labels is None:
            raise SotglpError(f"{X} has no labels: give a folder for each class, or a manifest with a label column")
        return images, np.asarray(images.labels)
    labels = label_array(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        warnings.warn("labels y stand in a column; give them in a row", DataConversionWarning, stacklevel=3)
        labels = labels.ravel()
    if labels.ndim != 1:
        raise SotglpError(f"labels y have the shape {labels.shape}: give one string or whole number an image")
    return ImageSet.from_items(X, labels), labels


def _maybe_labelled(X: Any, y: ArrayLike | None) -> ImageSet:
    """Images with labels as text, if y or a folder of class folders or a manifest tells them."""
    if y is not None:
        return _labelled(X, y)[0]
    if isinstance(X, str | os.PathLike) and (Path(X).is_dir() or Path(X).suffix.lower() in MANIFEST_SUFFIXES):
        try:
            return ImageSet.from_path(X)
        except SotglpError:
            return _unlabelled(X)
    return _unlabelled(X)


def _unlabelled(X: Any) -> ImageSet:
    if not isinstance(X, str | os.PathLike):
        return ImageSet.from_items(X)
    path = Path(X)
    if path.is_dir():
        return ImageSet.from_flat_folder(path)
    return ImageSet.from_items([path]) if path.suffix.lower() in IMAGE_SUFFIXES else ImageSet.from_manifest(path)
