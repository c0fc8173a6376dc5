"""The kinds of model, and how to build one from its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sotglp.backbone import Backbone
from sotglp.methods.base import AdaptedModel
from sotglp.methods.clap import CLAP
from sotglp.methods.clip_adapter import ClipAdapter
from sotglp.methods.clip_lora import ClipLora
from sotglp.methods.gallop import GalLoP
from sotglp.methods.gda import GDA
from sotglp.methods.linear_probe import LinearProbe
from sotglp.methods.locoop import LoCoOp
from sotglp.methods.lp_plus_plus import LPPlusPlus
from sotglp.methods.pool import Pool
from sotglp.methods.proker import ProKeR
from sotglp.methods.sot_glp import SOTGLP
from sotglp.methods.task_res import TaskRes
from sotglp.methods.tip_adapter import TipAdapter
from sotglp.methods.zero_shot import ZeroShot
from sotglp.settings import Settings

KINDS: dict[str, type[AdaptedModel]] = {
    model.kind: model
    for model in (
        *(ZeroShot, LinearProbe, TipAdapter, ClipAdapter, GDA, ProKeR, Pool, LPPlusPlus, TaskRes, CLAP),
        *(ClipLora, LoCoOp, GalLoP, SOTGLP),
    )
}
"""Every kind of model by its name in model files."""

_KIND_OF: dict[type[Settings], Callable[..., AdaptedModel]] = {model.Config: model for model in KINDS.values()}


def build_model(backbone: Backbone, class_names: Sequence[str], config: Settings, seed: int = 1) -> AdaptedModel:
    """Build an untrained model of the kind that the settings belong to; ``seed`` draws its initial weights."""
    return _KIND_OF[type(config)](backbone, class_names, seed=seed, **config.model_dump())
