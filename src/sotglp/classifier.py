"""What every classifier of the library does, by scikit-learn's contract; which method it has is its own affair."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from sotglp.adapted import AdaptedModel
from sotglp.arithmetic import choose_device
from sotglp.backbone import Backbone
from sotglp.config import OodMethod, Precision, Reading, Settings, TrainConfig, checked
from sotglp.dataset import ImageSet
from sotglp.errors import SotglpError
from sotglp.evaluation import Predictions, predict
from sotglp.images import IMAGE_SUFFIXES
from sotglp.modelfile import ModelRecord, load_model, save_model
from sotglp.prompts import label_text
from sotglp.training import adapt
from sotglp.vision import PatchAttention


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
        self.threshold_: dict[str, Any] | None = None
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable label of each image, (B,)."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probability of each class, in the order of ``classes_``, (B, C)."""
        return self._predictions(X).probabilities

    def ood_score(self, X: Any, method: OodMethod = "gl-mcm", temperature: float = 1.0) -> NDArray[np.float32]:
        """Score of each image, larger for those more like the classes, (B,); see :func:`sotglp.ood.score`."""
        return self._predictions(X, method, temperature).ood_scores

    def calibrate(self, X: Any, tpr: float = 0.95, method: OodMethod = "gl-mcm", temperature: float = 1.0) -> Self:
        """Set the threshold of :meth:`is_ood` so that a share ``tpr`` of these in-distribution images passes.

        Parameters
        ----------
        X : images
            Images of the classes that were not trained on.
        tpr : float, default 0.95
            Share of them to accept, above 0 and at most 1.
        method, temperature
            See :func:`sotglp.ood.score`.

        Raises
        ------
        SotglpError
            If ``tpr`` is out of range.
        """
        if not 0 < tpr <= 1:
            raise SotglpError(f"tpr = {tpr} must be above 0 and at most 1")
        scores = self.ood_score(X, method, temperature)
        threshold = float(np.quantile(scores, 1 - tpr, method="lower"))
        self.threshold_ = {"method": method, "temperature": temperature, "tpr": tpr, "threshold": threshold}
        return self

    def is_ood(self, X: Any) -> NDArray[np.bool_]:
        """Whether each image scores below the calibrated threshold, (B,).

        Raises
        ------
        SotglpError
            If :meth:`calibrate` has not run.
        """
        check_is_fitted(self, "model_")
        if self.threshold_ is None:
            raise SotglpError("there is no threshold yet: call calibrate(X) with images of the classes first")
        scores = self.ood_score(X, self.threshold_["method"], self.threshold_["temperature"])
        below: NDArray[np.bool_] = scores < self.threshold_["threshold"]
        return below

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
            threshold=self.threshold_,
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
        model, record = load_model(Path(path), backbone=backbone, pretrained=pretrained, device=choose_device(device))
        classifier = cls._from_record(model, record, device)
        classifier.classes_ = np.asarray(record.classes)
        classifier.model_, classifier.history_ = model, record.history
        classifier.threshold_ = record.threshold
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

    def _predictions(self, X: Any, method: OodMethod = "gl-mcm", temperature: float = 1.0) -> Predictions:
        check_is_fitted(self, "model_")
        reading = checked(
            Reading,
            {
                "workers": self.workers,
                "precision": self.precision,
                "ood_method": method,
                "temperature": temperature,
                "show_progress": self.verbose,
            },
        )
        return predict(self.model_, _unlabelled(X), reading)


def _labelled(X: Any, y: ArrayLike | None) -> tuple[ImageSet, NDArray[Any]]:
    """Images with labels as text, and the labels as they were given."""
    if y is None:
        if not isinstance(X, str | os.PathLike):
            raise SotglpError("fit needs labels y, or one path of a labelled folder or manifest as X")
        images = ImageSet.from_path(X)
        if images.labels is None:
            raise SotglpError(f"{X} has no labels: give a folder for each class, or a manifest with a label column")
        return images, np.asarray(images.labels)
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        warnings.warn("labels y stand in a column; give them in a row", DataConversionWarning, stacklevel=3)
        labels = labels.ravel()
    is_whole = labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
    if labels.ndim != 1 or not (labels.dtype.kind in "OUSiub" or is_whole):
        raise SotglpError(
            f"labels y must be one string or whole number an image, not {labels.dtype} of shape {labels.shape}"
        )
    return ImageSet.from_items(X, [label_text(label) for label in labels]), labels


def _unlabelled(X: Any) -> ImageSet:
    if not isinstance(X, str | os.PathLike):
        return ImageSet.from_items(X)
    path = Path(X)
    if path.is_dir():
        return ImageSet.from_flat_folder(path)
    return ImageSet.from_items([path]) if path.suffix.lower() in IMAGE_SUFFIXES else ImageSet.from_manifest(path)
