"""Settings of models, training and inference, with the published values as presets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sotglp.errors import SotglpError, SotglpWarning, UnknownNameError, short_repr
from sotglp.files.packaged import packaged_names, read_packaged

LocalInit = Literal["xavier", "orthonormal"]
Draw = Literal["per-class", "published"]
PatchAttention = Literal["value", "ordinary"]
LocalFactor = Literal["1/N", "1"]
Branches = Literal["both", "global", "local"]
Matching = Literal["transport", "uniform", "per-prompt"]
Residual = Literal["gda", "proker", "pool"]
LocalContexts = Literal["class", "shared"]
Optimizer = Literal["sgd", "adam", "adamw"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
# fmt: off
OodMethod = Literal[
    "mcm", "l-mcm", "gl-mcm", "msp", "max-logit", "energy", "margin", "entropy", "gen", "ash", "react", "vim", "she",
    "knn", "mahalanobis", "mahalanobis-patches", "subspace", "neglabel",
]
# fmt: on

Calibrator = Literal["temperature", "platt", "isotonic"]
"""How probabilities are calibrated; see :mod:`sotglp.scoring.probability_map`."""

SetScore = Literal["lac", "aps", "raps"]
"""Measures of conformity of prediction sets; see :mod:`sotglp.scoring.conformity`."""

SHOT_SCORES: frozenset[OodMethod] = frozenset(
    {"react", "vim", "she", "knn", "mahalanobis", "mahalanobis-patches", "subspace"}
)
"""Scores that compare images with the shots, which the model must store."""

RENAMED_SCORES: dict[str, OodMethod] = {"transport": "mahalanobis-patches"}
"""Former names of scores, which options and files may still use."""


def current_score(name: Any) -> Any:
    """Return the present name of a score; any other value is returned as it is."""
    return RENAMED_SCORES.get(name, name) if isinstance(name, str) else name


def noted_score(name: Any) -> Any:
    """Return the present name of a score, and emit a SotglpWarning for a former one."""
    current = current_score(name)
    if current is not name:
        warnings.warn(f"the OOD score {name} is now called {current}: use that name", SotglpWarning, stacklevel=2)
    return current


MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 1e6
"""Bounds of temperatures: beyond them, scaled logits overflow or vanish in float32."""

MAX_IMAGE_SIDE = 2048
"""Longest side of a backbone's input in pixels: 16,384 patches of a ViT-B/16. Published models go up to 512."""

MAX_SKLEARN_SEED = 2**32
"""Seeds of scikit-learn are below; larger seeds of sotglp are taken modulo it."""

PRESETS = "presets"
"""Folder of the presets in the package."""

LEAST_STEPS = 100
"""Optimiser steps if ``epochs`` is None: minutes on 2 CPU cores. The published runs take thousands."""

WARMUP_RATE = 1e-5
"""Step size of a warm-up, CoOp's."""

FEWEST_EPOCHS = 5
MOST_EPOCHS = 200


SYNONYMS = {
    **dict.fromkeys(("lr", "rate", "step_size", "eta"), "learning_rate"),
    **dict.fromkeys(("wd", "decay", "l2"), "weight_decay"),
    **dict.fromkeys(("bs", "batch", "batchsize"), "batch_size"),
    **dict.fromkeys(("n_epochs", "num_epochs", "max_epochs", "iterations"), "epochs"),
    **dict.fromkeys(("n_shots", "num_shots", "k_shot"), "shots"),
    **dict.fromkeys(("augmentation", "augmentations", "aug"), "augment"),
    **dict.fromkeys(("n_views", "num_views", "crops"), "views"),
    **dict.fromkeys(("dropout", "drop_rate"), "prompt_dropout"),
    **dict.fromkeys(("prompt", "prompt_template", "text", "sentence"), "template"),
    **dict.fromkeys(("k", "topk", "n_patches"), "top_k"),
    **dict.fromkeys(("eps", "reg", "regularization"), "epsilon"),
    **dict.fromkeys(("random_state", "random_seed"), "seed"),
    **dict.fromkeys(("num_workers", "n_workers", "n_jobs"), "workers"),
    **dict.fromkeys(("optim", "solver"), "optimizer"),
    **dict.fromkeys(("n_prompts", "local_prompts", "num_local_prompts"), "n_local_prompts"),
    **dict.fromkeys(("global_prompts", "num_global_prompts"), "n_global_prompts"),
    **dict.fromkeys(("dtype", "amp", "fp16"), "precision"),
    "accumulation": "micro_batch",
    "projection": "learn_projection",
    "sampling": "draw",
}
"""Names of settings in other programs, for suggestions."""


class Settings(BaseModel):
    """Base of all settings: validated, immutable, without unknown names, infinity or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


SettingsT = TypeVar("SettingsT", bound=Settings)


NonNegative = Annotated[float, Field(ge=0)]


class PromptConfig(Settings):
    """Settings that all models with global and local prompts share."""

    n_global_prompts: int = Field(3, ge=1, description="global prompts, M")
    n_local_prompts: int = Field(4, ge=1, description="local prompts of each class, N")
    top_k: int | None = Field(10, ge=1, description="patches in a support, K; none takes all of an image")
    template: str = Field("A photo of a {}", description="text that the contexts start from, {} for the class")
    learn_projection: bool = Field(True, description="learn a projection of patch tokens")
    local_init: LocalInit = Field("xavier", description="what local contexts start from")
    local_contexts: LocalContexts = Field("class", description="local contexts of each class's own, or shared by all")
    branches: Branches = Field("both", description="prompts that are learned: both, global or local ones")
    predict_with: Branches | None = Field(None, description="prompts that predict; none for those that are learned")


class ModelConfig(PromptConfig):
    """Settings of a SOT-GLP model (section 4 of the paper; defaults as published)."""

    epsilon: float = Field(0.1, gt=0, le=100, description="entropic regularisation of transport")
    relaxation: float | None = Field(None, gt=0, description="weight of relaxed marginals; none for balanced transport")
    local_factor: LocalFactor = Field("1/N", description="factor on the local score; 1/N as published")
    matching: Matching = Field(
        "transport",
        description="how patches meet the prompts of a class: transport on one support for all; uniform, a plan of "
        "equal parts there; per-prompt, equal parts on K patches of each prompt's own",
    )
    residual: Residual | None = Field(
        None, description="closed-form classifier on the image features of the shots that is added to the logits"
    )
    fusion: tuple[NonNegative, NonNegative, NonNegative] | None = Field(
        None,
        description="factors of global cosines, local cosines and residual; none keeps the published ones and chooses "
        "that of a residual from the shots",
    )


class InferenceConfig(Settings):
    """Settings of decoding, encoding and scoring at inference."""

    batch_size: int = Field(32, ge=1, description="images encoded at once")
    workers: int = Field(0, ge=0, description="processes that decode images")
    precision: Precision = Field("auto", description="arithmetic of the backbone; auto is fp16 on a GPU, else fp32")
    ood_method: Annotated[OodMethod, BeforeValidator(noted_score)] = Field(
        "gl-mcm", description="score of being in-distribution"
    )
    temperature: float = Field(1.0, ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE, description="temperature of that score")
    show_progress: bool = Field(False, description="show a progress bar on a terminal")

    def with_score(self, ood_method: str, temperature: float | None = None) -> InferenceConfig:
        """Return these settings with another OOD score, and with its temperature unless that is None."""
        changed = {"ood_method": ood_method} | ({} if temperature is None else {"temperature": temperature})
        return checked(InferenceConfig, self.model_dump() | changed)

    def threshold_of(self, calibration: Any) -> float | None:
        """Threshold of a calibration, or of its record; None without one, or if it applies to another score."""
        if calibration is None:
            return None
        applies = (calibration.ood_method, calibration.ood_temperature) == (self.ood_method, self.temperature)
        return float(calibration.rejection.threshold) if applies else None


class TrainConfig(Settings):
    """Settings of training.

    Optimiser, schedule and prompt dropout are the published ones. Epochs and views are ours, for a laptop: the presets
    of the eleven benchmarks hold the published values of both.
    """

    shots: int | None = Field(16, ge=1, description="images drawn of each class; none takes all")
    draw: Draw = Field("per-class", description="how shots are drawn when classes differ in size")
    epochs: int | None = Field(None, ge=1, description="passes over the shots; none for about 100 steps")
    batch_size: int = Field(32, ge=1, description="images of one step")
    micro_batch: int | None = Field(
        None, ge=1, description="images held at once, gradients added up; none for the batch"
    )
    learning_rate: float = Field(0.005, gt=0, description="first step size of the cosine schedule")
    optimizer: Optimizer = Field("sgd", description="rule of a step: sgd as published, adam or adamw")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD; Adam and AdamW do without")
    weight_decay: float = Field(0.01, ge=0, description="weight decay")
    warmup_epochs: int = Field(0, ge=0, description="first epochs, at a step size of 0.00001; the cosine follows")
    prompt_dropout: float = Field(0.75, ge=0, lt=1, description="share of global prompts left out for an image")
    views: int = Field(2, ge=0, description="augmented views of an image encoded once; 0 encodes a new one each epoch")
    augment: bool = Field(True, description="crop and flip; without it one centre crop is encoded once")
    remember: bool = Field(True, description="keep features of the shots, for OOD scores and new classes")
    precision: Precision = Field("auto", description="arithmetic of the backbone; auto is fp16 on a GPU, else fp32")
    workers: int = Field(0, ge=0, description="processes that decode images")
    seed: int = Field(1, ge=0, lt=2**63, description="seed of every random draw")

    def n_epochs(self, n_images: int) -> int:
        """Return ``epochs``, or enough for LEAST_STEPS steps, between FEWEST_EPOCHS and MOST_EPOCHS."""
        if self.epochs is not None:
            return self.epochs
        return min(max(math.ceil(LEAST_STEPS / self.steps_per_epoch(n_images)), FEWEST_EPOCHS), MOST_EPOCHS)

    def steps_per_epoch(self, n_images: int) -> int:
        """Return the number of steps of an epoch, which drops an incomplete last batch unless it is the only one."""
        return n_images // min(self.batch_size, n_images)

    def rate(self, epoch: int, n_epochs: int) -> float:
        """Return the step size in an epoch, from 0: constant in the warm-up, then a cosine.

        As in CoOp's schedule, the cosine starts after the warm-up with its full length, and is cut at the end.
        """
        if epoch < self.warmup_epochs:
            return WARMUP_RATE
        return self.learning_rate * (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / n_epochs)) / 2

    def inference_config(self) -> InferenceConfig:
        """Return the inference settings of images that the run doesn't train on."""
        return InferenceConfig(precision=self.precision, workers=self.workers)


class Preset(Settings):
    """Published settings of a dataset, or the defaults for a user's folder."""

    model: ModelConfig = ModelConfig()
    training: TrainConfig = TrainConfig()
    zero_shot_template: str = "a photo of a {}."

    def changed(self, values: Mapping[str, Any]) -> Preset:
        """Return these settings with changed values, by name in the model or training settings.

        Raises
        ------
        SotglpError
            If a name is unknown or a value can't be used.
        """
        check_names(values, {*ModelConfig.model_fields, *TrainConfig.model_fields})

        def updated(settings: SettingsT) -> SettingsT:
            mine = {name: value for name, value in values.items() if name in type(settings).model_fields}
            return checked(type(settings), settings.model_dump() | mine)

        return self.model_copy(update={"model": updated(self.model), "training": updated(self.training)})


def check_names(values: Iterable[str], known: Iterable[str]) -> None:
    """Raise UnknownNameError for the first name that is not ``known``."""
    known = sorted(known)
    for name in values:
        if name not in known:
            raise UnknownNameError("setting", name, known, SYNONYMS)


def checked(kind: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Build settings from values.

    Raises
    ------
    SotglpError
        Naming the first invalid value.
    """
    try:
        # kind(**values) would need all names to be text.
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SotglpError(
            f"{where} = {short_repr(first.get('input'))} can't be used: {first['msg'].lower()}"
        ) from error


def presets() -> list[str]:
    """Return the names of the presets, sorted."""
    return packaged_names(PRESETS)


def load_preset(name: str) -> Preset:
    """Load a preset by name, or from a user's YAML file.

    Raises
    ------
    SotglpError
        If the name is unknown or the file can't be used.
    """
    values = read_packaged(PRESETS, "preset", name) or {}
    if not isinstance(values, dict):
        raise SotglpError(
            f"the preset file {name} must hold the entries model and training, each with settings by name"
        )
    return checked(Preset, values)
