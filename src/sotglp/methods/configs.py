"""Settings of each kind of model. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sotglp.errors import SotglpError
from sotglp.settings import ModelConfig, PromptConfig, Settings, checked


class ZeroShotConfig(Settings):
    """Settings of zero-shot CLIP."""

    zero_shot_template: str = Field("a photo of a {}.", description="sentence with {} for the class")
    ensemble: bool = Field(False, description="average the 80 sentences of CLIP's authors for ImageNet instead")


class LinearProbeConfig(ZeroShotConfig):
    """Settings of the linear probe; sentences are used for OOD scores of patches only."""

    inverse_regularisation: float = Field(100.0, gt=0, description="scikit-learn's C, on features of unit length")


class TipAdapterConfig(ZeroShotConfig):
    """Settings of Tip-Adapter; defaults are where the paper's search on validation images starts."""

    cache_weight: float = Field(1.0, ge=0, description="weight of the cache relative to scaled cosines, alpha")
    sharpness: float = Field(5.5, gt=0, description="decay of a key's vote with its distance, beta")
    learn_keys: bool = Field(False, description="train the keys (Tip-Adapter-F)")


class ClipAdapterConfig(ZeroShotConfig):
    """Settings of CLIP-Adapter."""

    reduction: int = Field(4, ge=1, description="feature width divided by the adapter's hidden width")
    mix: float = Field(0.2, ge=0, le=1, description="share of the adapted feature in the mix, alpha")


class GdaConfig(ZeroShotConfig):
    """Settings of GDA."""

    fusion_weight: float | None = Field(
        None, ge=0, description="weight of the discriminant beside scaled cosines, alpha; none chooses it on the shots"
    )


class ProkerConfig(ZeroShotConfig):
    """Settings of ProKeR."""

    sharpness: float | None = Field(
        None, gt=0, description="decay of the kernel with distance, beta; none chooses it on the shots"
    )
    ridge: float | None = Field(None, gt=0, description="regularisation, lambda; none chooses it on the shots")


class LpPlusPlusConfig(ZeroShotConfig):
    """Settings of LP++."""

    iterations: int = Field(300, ge=0, description="gradient steps, each on all shots")


class PoolConfig(LinearProbeConfig, ProkerConfig, GdaConfig):
    """Settings of the pool: those of its members."""


class TaskResConfig(ZeroShotConfig):
    """Settings of TaskRes."""

    residual_scale: float = Field(0.5, gt=0, description="factor on the residuals, alpha")


class ClapConfig(ZeroShotConfig):
    """Settings of CLAP."""

    constrained: bool = Field(True, description="keep prototypes near text features; without it this is ZS-LP")


class ClipLoraConfig(ZeroShotConfig):
    """Settings of CLIP-LoRA."""

    rank: int = Field(2, ge=1, description="rank of the updates of query, key and value matrices, r")
    alpha: float = Field(1.0, gt=0, description="factor on the updates, divided by the root of the rank")
    input_dropout: float = Field(0.25, ge=0, lt=1, description="share of the updates' inputs left out in training")


class LoCoOpConfig(ModelConfig):
    """Settings of LoCoOp: those of SOT-GLP and of the regularisation."""

    ood_weight: float = Field(0.25, ge=0, description="weight of the entropy of patches without the true class")
    rank: float = Field(0.2, gt=0, le=1, description="share of the classes that count as first in a patch")


class GalLoPConfig(PromptConfig):
    """Settings of GalLoP: those of the prompts and of the scales."""

    scale_step: int = Field(10, ge=0, description="additional patches of each local prompt over the one before")


CONFIG_OF_KIND: dict[str, type[Settings]] = {
    "zero-shot": ZeroShotConfig,
    "linear-probe": LinearProbeConfig,
    "tip-adapter": TipAdapterConfig,
    "clip-adapter": ClipAdapterConfig,
    "gda": GdaConfig,
    "proker": ProkerConfig,
    "pool": PoolConfig,
    "lp++": LpPlusPlusConfig,
    "task-res": TaskResConfig,
    "clap": ClapConfig,
    "clip-lora": ClipLoraConfig,
    "locoop": LoCoOpConfig,
    "gallop": GalLoPConfig,
    "sot-glp": ModelConfig,
}
"""Settings of each kind of model, by the name of the kind in model files."""

KINDS_WITHOUT_TEXT = ("linear-probe", "tip-adapter", "gda", "proker", "pool")
"""Kinds that learn from image features alone; scores of sentences, if there are any, are added to theirs."""

_REMOVED_SETTINGS = {"gallop": {"epsilon", "local_factor", "matching", "relaxation"}}
"""Settings without effect that older model files hold."""


def check_needs_no_text(kind: str, backbone: str) -> None:
    """Raise a SotglpError if a kind of model needs the text tower that a backbone of that name doesn't have."""
    if kind not in KINDS_WITHOUT_TEXT:
        raise SotglpError(
            f"a model of kind {kind} compares images with texts, and the backbone {backbone} has no text tower: choose "
            "the method linear-probe, tip-adapter, tip-adapter-f, gda, proker or pool, or another backbone"
        )


def config_from_record(kind: str, values: Mapping[str, Any]) -> Settings:
    """Check the settings of a kind of model as a model file of this or an older version stores them."""
    removed = _REMOVED_SETTINGS.get(kind, set())
    return checked(CONFIG_OF_KIND[kind], {name: value for name, value in dict(values).items() if name not in removed})
