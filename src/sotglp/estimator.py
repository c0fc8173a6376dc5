"""SOT-GLP as a scikit-learn classifier of images."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import check_is_fitted

from sotglp.arithmetic import choose_device
from sotglp.backbone import Backbone
from sotglp.config import (
    Branches,
    LocalFactor,
    Matching,
    ModelConfig,
    OodMethod,
    Precision,
    Reading,
    TrainConfig,
    checked,
    load_preset,
)
from sotglp.dataset import ImageSet
from sotglp.errors import SotglpError
from sotglp.evaluation import Predictions, predict
from sotglp.images import IMAGE_SUFFIXES
from sotglp.modelfile import load_model, save_model
from sotglp.prompts import LocalInit, label_text
from sotglp.shots import Draw
from sotglp.training import adapt
from sotglp.vision import PatchAttention


class SOTGLPClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Few-shot image classifier with out-of-distribution scores.

    Images (X) are paths, PIL images, or a tensor (B, 3, H, W): uint8 pixels are preprocessed like photos, floats are
    taken as preprocessed by the backbone already. X may also be one path: of a folder with a folder for each class or
    of a manifest, which needs no y in :meth:`fit`; elsewhere of any folder of images, a manifest, or one image.

    Parameters
    ----------
    backbone : str or Backbone, default "ViT-B-16"
        Name as open_clip has it, or a backbone at hand.
    pretrained : str, path or None, default "auto"
        Tag, weight file, or None for random weights; not looked at where ``backbone`` is one at hand.
    image_size : int or None, default None
        Side of the input in pixels, if not the architecture's own.
    patch_attention : {"value", "ordinary"}, default "value"
        See :meth:`sotglp.Backbone.load`; not looked at where ``backbone`` is one at hand.
    device : str, default "auto"
        ``"cpu"``, ``"cuda"``, or ``"auto"``.
    shots : int or None, default 16
        Images drawn of each class; None takes all.
    draw : {"per-class", "published"}, default "per-class"
        How shots are drawn when classes differ in size.
    n_global_prompts, n_local_prompts, top_k, epsilon, relaxation, template, learn_projection, local_init, local_factor
        See :class:`sotglp.SOTGLP`.
    branches, matching
        See :class:`sotglp.SOTGLP`.
    epochs, batch_size, micro_batch, learning_rate, momentum, weight_decay, prompt_dropout, views, augment
        See :class:`sotglp.config.TrainConfig`.
    precision : {"auto", "fp32", "bf16", "fp16"}, default "auto"
        Arithmetic of the backbone; auto is fp16 on a GPU, else fp32.
    workers : int, default 0
        Processes that decode images.
    cache_dir : path or None, default None
        Folder where :meth:`fit` keeps encoded views for this and other runs; None keeps them in memory.
    seed : int, default 1
        Seed of every random draw.
    verbose : bool, default False
        Show progress bars on a terminal.

    Attributes
    ----------
    classes_ : NDArray
        Labels in sorted order, (C,).
    model_ : SOTGLP
        The trained model.
    history_ : list of dict
        Loss, accuracy and learning rate of each epoch.
    threshold_ : dict or None
        OOD method, temperature and threshold, once :meth:`calibrate` has run.

    References
    ----------
    SOT-GLP, arXiv 2603.08347.
    """

    def __init__(
        self,
        backbone: str | Backbone = "ViT-B-16",
        pretrained: str | os.PathLike[str] | None = "auto",
        *,
        image_size: int | None = None,
        patch_attention: PatchAttention = "value",
        device: str = "auto",
        shots: int | None = 16,
        draw: Draw = "per-class",
        n_global_prompts: int = 3,
        n_local_prompts: int = 4,
        top_k: int = 10,
        epsilon: float = 0.1,
        relaxation: float | None = None,
        template: str = "A photo of a {}",
        learn_projection: bool = True,
        local_init: LocalInit = "xavier",
        local_factor: LocalFactor = "1/N",
        branches: Branches = "both",
        matching: Matching = "transport",
        epochs: int | None = None,
        batch_size: int = 32,
        micro_batch: int | None = None,
        learning_rate: float = 0.005,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        prompt_dropout: float = 0.75,
        views: int = 2,
        augment: bool = True,
        precision: Precision = "auto",
        workers: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        seed: int = 1,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.image_size = image_size
        self.patch_attention = patch_attention
        self.device = device
        self.shots = shots
        self.draw = draw
        self.n_global_prompts = n_global_prompts
        self.n_local_prompts = n_local_prompts
        self.top_k = top_k
        self.epsilon = epsilon
        self.relaxation = relaxation
        self.template = template
        self.learn_projection = learn_projection
        self.local_init = local_init
        self.local_factor = local_factor
        self.branches = branches
        self.matching = matching
        self.epochs = epochs
        self.batch_size = batch_size
        self.micro_batch = micro_batch
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.prompt_dropout = prompt_dropout
        self.views = views
        self.augment = augment
        self.precision = precision
        self.workers = workers
        self.cache_dir = cache_dir
        self.seed = seed
        self.verbose = verbose

    @classmethod
    def from_preset(cls, preset: str, **parameters: Any) -> SOTGLPClassifier:
        """A classifier with the settings of a preset (``sotglp info --presets``), and ``parameters`` over them."""
        settings = load_preset(preset)
        return cls(**{**settings.model.model_dump(), **settings.training.model_dump(), **parameters})

    def fit(self, X: Any, y: ArrayLike | None = None) -> SOTGLPClassifier:
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

    def calibrate(
        self, X: Any, tpr: float = 0.95, method: OodMethod = "gl-mcm", temperature: float = 1.0
    ) -> SOTGLPClassifier:
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
    ) -> SOTGLPClassifier:
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
        training = record.training or TrainConfig()
        classifier = cls(
            model.backbone,
            model.backbone.pretrained,
            patch_attention=model.backbone.patch_attention,
            device=device,
            **record.model.model_dump(),
            **training.model_dump(),
        )
        classifier.classes_ = np.asarray(record.classes)
        classifier.model_, classifier.history_ = model, record.history
        classifier.threshold_ = record.threshold
        return classifier

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _settings(self) -> tuple[ModelConfig, TrainConfig]:
        parameters = self.get_params(deep=False)
        return (
            checked(ModelConfig, {name: parameters[name] for name in ModelConfig.model_fields}),
            checked(TrainConfig, {name: parameters[name] for name in TrainConfig.model_fields}),
        )

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
