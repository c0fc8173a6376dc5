"""SOT-GLP as a scikit-learn classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import Self

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import AUTO, DECIDED, FOLDER, default_method, training_defaults
from sotglp.errors import SotglpError
from sotglp.estimators.classifier import ImageClassifier
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import find_method
from sotglp.methods.sot_glp import SOTGLP
from sotglp.model_file.record import ModelRecord
from sotglp.settings import (
    Branches,
    Draw,
    LocalContexts,
    LocalFactor,
    LocalInit,
    Matching,
    ModelConfig,
    Optimizer,
    PatchAttention,
    Precision,
    Residual,
    Settings,
    TrainConfig,
    checked,
    load_preset,
)


class SOTGLPClassifier(ImageClassifier):
    """Few-shot image classifier with OOD scores, calibrated decisions and explanations.

    Images (X) are paths, PIL images, or a tensor (B, 3, H, W): uint8 pixels are preprocessed like photos, floats are
    already preprocessed for the backbone. X may also be a data frame of pandas or Polars with a column ``path``, or one
    path: of a folder with a folder for each class or of a manifest; in other methods than :meth:`fit` also of a folder
    of images, or of one image. Class folders, and a column ``label`` of a manifest or data frame, need no y.

    Parameters
    ----------
    backbone : str or Backbone, default "auto"
        open_clip name, or a loaded backbone. ``"auto"`` is OpenAI's ViT-B/16 if its weights are in the local cache,
        else ``"photo"``, which ships with the package.
    pretrained : str, path or None, default "auto"
        Tag, weight file, or None for random weights; ignored if ``backbone`` is loaded.
    image_size : int or None, default None
        Side of the input in pixels; None for the architecture's default.
    patch_attention : {"value", "ordinary"}, default "value"
        See :meth:`sotglp.Backbone.load`; ignored if ``backbone`` is loaded.
    device : str, default "auto"
        ``"cpu"``, ``"cuda"``, or ``"auto"``.
    shots : int or None, default 16
        Images drawn from each class; None takes all.
    draw : {"per-class", "published"}, default "per-class"
        How shots are drawn when classes differ in size.
    n_global_prompts, n_local_prompts, top_k, epsilon, relaxation, template, learn_projection, local_init, local_factor
        See :class:`sotglp.SOTGLP`.
    branches, predict_with, matching, local_contexts, fusion
        See :class:`sotglp.SOTGLP`.
    residual : {"auto", "gda", "proker", "pool"} or None, default "auto"
        See :class:`sotglp.SOTGLP`; None is SOT-GLP as published, ``"auto"`` what comes with the backbone: ``"gda"``
        with ``"photo"``.
    epochs, batch_size, views, augment
        See :class:`sotglp.settings.TrainConfig`; ``"auto"`` is the value that comes with the backbone.
    learning_rate : float, "auto" or None, default None
        First step size; None is the value that comes with the backbone. ``"auto"`` chooses among a quarter of it,
        itself and four times it on held-out shots, as ``sotglp fit --lr auto`` does, in three more fits' time.
    micro_batch, optimizer, momentum, weight_decay, warmup_epochs, prompt_dropout, remember
        See :class:`sotglp.settings.TrainConfig`.
    precision : {"auto", "fp32", "bf16", "fp16"}, default "auto"
        Precision of the backbone; auto is fp16 on a GPU, else fp32.
    workers : int, default 0
        Processes that decode images.
    cache_dir : path or None, default None
        Folder of the feature cache, which runs share; None caches in memory.
    seed : int, default 1
        Random seed.
    verbose : bool, default False
        Show progress bars on a terminal.
    class_names : sequence of str, mapping or None, default None
        Names of the classes in prompts: in the order of ``classes_``, or by label. None uses the labels as names.
        ``cross_val_predict(method="predict_proba")``, ``VotingClassifier``, ``StackingClassifier`` and others of
        scikit-learn replace labels by numbers before they call :meth:`fit`, so that prompts need these names.

    Attributes
    ----------
    classes_ : NDArray
        Labels in sorted order, (C,).
    model_ : SOTGLP
        The trained model.
    history_ : list of dict
        Loss, accuracy and learning rate of each epoch.
    calibration_ : Calibration or None
        Set by :meth:`calibrate`.
    choices_ : tuple of Choice
        The learning rate that held-out shots chose, and the evidence; empty unless it is ``"auto"``.

    References
    ----------
    SOT-GLP, arXiv 2603.08347.
    """

    def __init__(
        self,
        backbone: str | Backbone = "auto",
        pretrained: str | os.PathLike[str] | None = "auto",
        *,
        image_size: int | None = None,
        patch_attention: PatchAttention = "value",
        device: str = "auto",
        shots: int | None = 16,
        draw: Draw = "per-class",
        n_global_prompts: int = 3,
        n_local_prompts: int = 4,
        top_k: int | None = 10,
        epsilon: float = 0.1,
        relaxation: float | None = None,
        template: str = "A photo of a {}",
        learn_projection: bool = True,
        local_init: LocalInit = "xavier",
        local_factor: LocalFactor = "1/N",
        branches: Branches = "both",
        predict_with: Branches | None = None,
        matching: Matching = "transport",
        local_contexts: LocalContexts = "class",
        residual: Residual | Literal["auto"] | None = "auto",
        fusion: tuple[float, float, float] | None = None,
        epochs: int | Literal["auto"] | None = "auto",
        batch_size: int | Literal["auto"] = "auto",
        micro_batch: int | None = None,
        learning_rate: float | Literal["auto"] | None = None,
        optimizer: Optimizer = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        warmup_epochs: int = 0,
        prompt_dropout: float = 0.75,
        views: int | Literal["auto"] = "auto",
        augment: bool | Literal["auto"] = "auto",
        remember: bool = True,
        precision: Precision = "auto",
        workers: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        seed: int = 1,
        verbose: bool = False,
        class_names: Mapping[Any, str] | Sequence[str] | None = None,
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
        self.predict_with = predict_with
        self.matching = matching
        self.local_contexts = local_contexts
        self.residual = residual
        self.fusion = fusion
        self.epochs = epochs
        self.batch_size = batch_size
        self.micro_batch = micro_batch
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.prompt_dropout = prompt_dropout
        self.views = views
        self.augment = augment
        self.remember = remember
        self.precision = precision
        self.workers = workers
        self.cache_dir = cache_dir
        self.seed = seed
        self.verbose = verbose
        self.class_names = class_names

    @classmethod
    def from_preset(cls, preset: str, **parameters: Any) -> Self:
        """Build a classifier from a preset (``sotglp info --presets``); ``parameters`` override its settings."""
        settings = load_preset(preset)
        training = settings.training.model_dump(exclude_unset=True)
        of_model = settings.model.model_dump(exclude={"residual"} if preset == FOLDER else None)
        return cls(**{**of_model, **training, **parameters})

    def _settings(self, backbone: str) -> tuple[Settings, TrainConfig]:
        parameters = self.get_params(deep=False)
        if parameters["residual"] == AUTO:
            parameters["residual"] = find_method(default_method(backbone)).settings.get("residual")
        training = {name: parameters[name] for name in TrainConfig.model_fields}
        for name in DECIDED:
            if _is_auto(training[name]) or (name == "learning_rate" and training[name] is None):
                del training[name]
        return (
            checked(ModelConfig, {name: parameters[name] for name in ModelConfig.model_fields}),
            checked(TrainConfig, training_defaults(backbone) | training),
        )

    @property
    def _rate_is_open(self) -> bool:
        return _is_auto(self.learning_rate)

    @classmethod
    def _from_record(cls, model: AdaptedModel, record: ModelRecord, device: str) -> Self:
        if model.kind != SOTGLP.kind:
            raise SotglpError(f"the file holds a {model.kind} model: load it with MethodClassifier")
        training = record.training or TrainConfig()
        return cls(
            model.backbone,
            model.backbone.pretrained,
            patch_attention=model.backbone.patch_attention,
            device=device,
            **record.model.model_dump(),
            **training.model_dump(),
        )


def _is_auto(value: object) -> bool:
    """Whether a parameter, which may be an array of numbers, is ``"auto"``."""
    return isinstance(value, str) and value == AUTO
