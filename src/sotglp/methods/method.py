"""The table of methods, SOT-GLP and the baselines: each is a kind of model with certain settings.

Importing it loads no torch; :mod:`sotglp.methods.registry` builds the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sotglp.backbone_defaults import IMAGE_ONLY, PUBLISHED_METHOD, default_method
from sotglp.errors import UnknownNameError
from sotglp.methods.configs import CONFIG_OF_KIND, KINDS_WITHOUT_TEXT, check_needs_no_text
from sotglp.settings import Preset, Settings, TrainConfig, check_names, checked


@dataclass(frozen=True)
class Method:
    """A method of adapting a backbone to classes.

    ``name`` is used in suites and tables, ``title`` in papers, ``kind`` in model files; ``source`` is its publication.
    ``settings`` differ from the defaults of that kind, ``training`` from the published training of SOT-GLP. A method
    that doesn't use shots uses no labelled image, so that neither shots nor seeds change it.
    """

    name: str
    title: str
    source: str
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    uses_shots: bool = True

    @property
    def config_class(self) -> type[Settings]:
        """Settings class of its kind of model."""
        return CONFIG_OF_KIND[self.kind]

    def runs_on(self, backbone: str) -> bool:
        """Return whether the backbone of that name has text, or the method needs none."""
        return self.kind in KINDS_WITHOUT_TEXT or not backbone.startswith(IMAGE_ONLY)

    def check_backbone(self, name: str) -> None:
        """Raise a SotglpError if the method needs text and the backbone of that name has none."""
        if not self.runs_on(name):
            check_needs_no_text(self.kind, name)

    def settings_on(self, preset: Preset, changes: Mapping[str, Any]) -> tuple[Settings, TrainConfig]:
        """Return the settings of model and training on a dataset; raise a SotglpError for invalid ``changes``.

        Later sources take precedence: the preset of the dataset, the method's own settings, ``changes``.
        """
        fields = self.config_class.model_fields
        check_names(changes, {*fields, *TrainConfig.model_fields})
        of_preset = {**preset.model.model_dump(), "zero_shot_template": preset.zero_shot_template}
        of_model = {name: value for name, value in of_preset.items() if name in fields} | dict(self.settings)
        of_training = {**preset.training.model_dump(), **self.training}
        for name, value in changes.items():
            (of_training if name in TrainConfig.model_fields else of_model)[name] = value
        return checked(self.config_class, of_model), checked(TrainConfig, of_training)


_COOP_SETTINGS = {"branches": "global", "n_global_prompts": 1}
_COOP_TRAINING = {"prompt_dropout": 0.0, "weight_decay": 0.0005}
_TASK_RES_TRAINING = {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.0005, "epochs": 100}
_CLIP_LORA_TRAINING = {"optimizer": "adamw", "learning_rate": 0.0002, "weight_decay": 0.01, "epochs": 300, "views": 0}
_CLAP_TRAINING = {"learning_rate": 0.1, "weight_decay": 0.0, "epochs": 300, "batch_size": 256}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("zero-shot", "CLIP, zero-shot", "arXiv 2103.00020", "zero-shot", uses_shots=False),
        Method(
            "zero-shot-ensemble",
            "CLIP, 80 sentences",
            "arXiv 2103.00020",
            "zero-shot",
            settings={"ensemble": True},
            uses_shots=False,
        ),
        Method("linear-probe", "Linear probe", "arXiv 2103.00020", "linear-probe"),
        Method("tip-adapter", "Tip-Adapter", "arXiv 2111.03930", "tip-adapter"),
        Method(
            "tip-adapter-f",
            "Tip-Adapter-F",
            "arXiv 2111.03930",
            "tip-adapter",
            settings={"learn_keys": True},
            training={"optimizer": "adamw", "learning_rate": 0.001, "epochs": 20},
        ),
        Method("clip-adapter", "CLIP-Adapter", "arXiv 2110.04544", "clip-adapter"),
        Method("gda", "GDA", "arXiv 2402.04087", "gda"),
        Method("proker", "ProKeR", "arXiv 2501.11175", "proker"),
        Method("pool", "GDA, ProKeR, probe pooled", "ours", "pool"),
        Method("lp++", "LP++", "arXiv 2404.02285", "lp++"),
        Method("task-res", "TaskRes", "arXiv 2211.10277", "task-res", training=_TASK_RES_TRAINING),
        Method("clap", "CLAP", "arXiv 2312.12730", "clap", training=_CLAP_TRAINING),
        # Images are encoded in each step, unless only the text tower has attention.
        Method("clip-lora", "CLIP-LoRA", "arXiv 2405.18541", "clip-lora", training=_CLIP_LORA_TRAINING),
        # One context shared by all classes, compared with the image feature.
        Method("coop", "CoOp", "arXiv 2109.01134", "sot-glp", _COOP_SETTINGS, _COOP_TRAINING),
        Method("locoop", "LoCoOp", "arXiv 2306.01293", "locoop", _COOP_SETTINGS, _COOP_TRAINING),
        # N contexts shared by all classes, matched with all patches by transport.
        Method(
            "plot",
            "PLOT",
            "arXiv 2210.01253",
            "sot-glp",
            settings={
                "branches": "local",
                "local_contexts": "shared",
                "n_local_prompts": 4,
                "top_k": None,
                "local_factor": "1",
                "learn_projection": False,
            },
            training={"weight_decay": 0.0005},
        ),
        Method(
            "gallop",
            "GalLoP",
            "arXiv 2407.01400",
            "gallop",
            settings={"n_global_prompts": 4, "local_contexts": "shared", "n_local_prompts": 4},
        ),
        Method("sot-glp", "SOT-GLP", "arXiv 2603.08347", "sot-glp"),
        Method(
            "sot-glp-projection-free",
            "SOT-GLP, projection-free",
            "arXiv 2603.08347",
            "sot-glp",
            settings={"learn_projection": False},
        ),
        Method("sot-glp-gda", "SOT-GLP + GDA", "ours", "sot-glp", settings={"residual": "gda"}),
        Method("sot-glp-proker", "SOT-GLP + ProKeR", "ours", "sot-glp", settings={"residual": "proker"}),
        Method("sot-glp-pool", "SOT-GLP + pool", "ours", "sot-glp", settings={"residual": "pool"}),
    )
}
"""Every method by its name, in the order of tables."""


AUTO_METHODS = ("pool", "gda", "proker", "lp++", "linear-probe", "zero-shot")
"""Candidates of ``--method auto`` that take no training; the first one was the best of them on the mean of nine sets of
photos (docs/auto_measured.md)."""

FUSED = "sot-glp-pool"
"""Trained candidate of ``--method auto`` on backbones whose default method has a residual: it adds the first of
``AUTO_METHODS`` to what was trained, and was closest to the best single method (docs/auto_measured.md)."""


def candidates_on(backbone: str, preset: Preset, changes: Mapping[str, Any]) -> dict[str, tuple[Settings, TrainConfig]]:
    """Return the settings of the candidates of ``--method auto`` on a backbone; see :meth:`Method.settings_on`.

    These are ``AUTO_METHODS`` and a trained one, as far as they run on it. The first one is preferred: ``FUSED`` if the
    backbone's default method has a residual, otherwise the first of ``AUTO_METHODS``, beside the default. A change
    applies to the methods that have such a setting; raise a SotglpError if none has.
    """
    trained = default_method(backbone)
    names = (*AUTO_METHODS, trained) if trained == PUBLISHED_METHOD else (FUSED, *AUTO_METHODS)
    methods = [method for method in map(find_method, names) if method.runs_on(backbone)]
    fields = {method.name: {*method.config_class.model_fields, *TrainConfig.model_fields} for method in methods}
    check_names(changes, set().union(*fields.values()))
    return {
        method.name: method.settings_on(
            preset, {name: value for name, value in changes.items() if name in fields[method.name]}
        )
        for method in methods
    }


def find_method(name: str) -> Method:
    """Return the method of that name; raise an UnknownNameError if there is none."""
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def infer_method(settings: Settings) -> Method:
    """Return the method of a model's kind with the most settings that all agree; if none agrees, the most general."""
    same_kind = [method for method in METHODS.values() if method.config_class is type(settings)]
    agreeing = [one for one in same_kind if one.settings.items() <= settings.model_dump().items()]
    by_size = sorted(agreeing or same_kind, key=lambda method: len(method.settings), reverse=bool(agreeing))
    return by_size[0]
