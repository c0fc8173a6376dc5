"""Methods of adaptation, SOT-GLP and its peers: the same backbone, images, fit loop and evaluation for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sotglp.backbone import Backbone
from sotglp.errors import UnknownNameError
from sotglp.methods import clip_adapter, coop, gallop, linear_probe, locoop, plot, sot_glp, tip_adapter, zero_shot
from sotglp.methods.base import AdaptedModel
from sotglp.methods.method import Method
from sotglp.settings import Settings

METHODS: dict[str, Method] = {
    method.name: method
    for room in (zero_shot, linear_probe, tip_adapter, clip_adapter, coop, locoop, plot, gallop, sot_glp)
    for method in room.METHODS
}
"""Every method by its name, in the order of tables."""

KINDS: dict[str, type[AdaptedModel]] = {method.model.kind: method.model for method in METHODS.values()}
"""Every kind of model by the name that model files have for it."""

_KIND_OF: dict[type[Settings], Callable[..., AdaptedModel]] = {model.Config: model for model in KINDS.values()}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def build_model(backbone: Backbone, class_names: Sequence[str], config: Settings, seed: int = 1) -> AdaptedModel:
    """The model that these settings belong to, as it starts.

    Parameters
    ----------
    backbone : Backbone
        Frozen CLIP-like model.
    class_names : sequence of str
        C names.
    config : Settings
        Settings of any kind of model.
    seed : int, default 1
        Seed of what is drawn at random.

    Raises
    ------
    SotglpError
        If classes or settings can't be used.
    """
    return _KIND_OF[type(config)](backbone, class_names, seed=seed, **config.model_dump())
