"""The model file: one safetensors file with what was learned, and what it was learned on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from open_clip.model import set_model_preprocess_cfg
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from sotglp.backbone import Backbone
from sotglp.backbone.weights import MAX_IMAGE_SIDE, build_clip, is_known, weight_shapes
from sotglp.errors import SotglpError, SotglpWarning, short_repr
from sotglp.files.tensors import NO_TENSOR, read_tensors, write_tensors
from sotglp.files.versions import installed_versions as installed_versions
from sotglp.images.labels import label_text
from sotglp.methods.base import AdaptedModel
from sotglp.methods.prompts import template_tokens
from sotglp.methods.registry import KINDS, build_model
from sotglp.methods.sot_glp import SOTGLP
from sotglp.model_file.extras import (
    SHOTS_PREFIX,
    CalibrationRecord,
    calibration_prefixes,
    calibration_record,
    calibration_tensors,
    restored_calibration,
    restored_shots,
    shot_tensors,
)
from sotglp.scoring.calibration import Calibration
from sotglp.settings import ModelConfig, PatchAttention, Settings, TrainConfig, checked
from sotglp.training.checkpoint import checked_history

FORMAT_VERSION = 2
BACKBONE_PREFIX = "backbone."

_Side = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIDE)]


class PreprocessRecord(BaseModel):
    """How images are preprocessed, in open_clip's words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[_Side, _Side]
    mode: Literal["RGB"]
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    interpolation: Literal["bicubic", "bilinear", "random"]
    resize_mode: Literal["shortest", "longest", "squash"]
    fill_color: int


class BackboneRecord(BaseModel):
    """What a model file tells of its backbone; files of older versions say less: see the defaults."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(max_length=200)
    pretrained: str | None
    seed: int | None
    image_size: tuple[_Side, _Side]
    fingerprint: str
    quick_gelu: bool = False
    preprocess: PreprocessRecord | None = None
    patch_attention: PatchAttention = "value"


@dataclass(frozen=True)
class ModelRecord:
    """What a model file tells beside its tensors.

    Attributes
    ----------
    classes : list
        Class labels in the model's order: text or whole numbers.
    model : Settings
        Settings of the model, of its kind.
    training : TrainConfig or None
        Settings of the run that made it.
    backbone : dict
        See :class:`BackboneRecord`.
    history : list of dict
        Loss, accuracy and learning rate of each epoch.
    calibration : CalibrationRecord or None
        Threshold and temperature, once calibrated; :func:`load_calibration` reads all of it.
    versions : dict
        Versions of sotglp, torch and open_clip that wrote the file.
    """

    classes: list[str | int | float]
    model: Settings
    training: TrainConfig | None
    backbone: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    calibration: CalibrationRecord | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def label_of(self, name: str) -> str | int | float:
        """A class name as a label of the kind that the model has.

        Raises
        ------
        SotglpError
            If its labels are numbers and the name is none.
        """
        if any(isinstance(label, str) for label in self.classes):
            return name
        try:
            return int(name)
        except ValueError as error:
            raise SotglpError(
                f"the classes of the model are numbers, and {name!r} is none: give a whole number"
            ) from error


def carries_backbone(path: Path) -> bool:
    """Whether a model file holds the backbone's weights."""
    return bool(read_tensors(path, "model file", prefix=f"{BACKBONE_PREFIX}logit_scale")[0])


def save_model(
    path: Path,
    model: AdaptedModel,
    *,
    classes: list[str | int | float] | None = None,
    training: TrainConfig | None = None,
    history: list[dict[str, float]] | None = None,
    calibration: Calibration | None = None,
    include_backbone: bool = False,
    force: bool = False,
) -> None:
    """Write a model file; the same model gives the same bytes.

    Parameters
    ----------
    path : Path
        Where the file goes.
    model : AdaptedModel
        What to write.
    classes : list or None
        Labels, if other than the model's class names.
    training, history
        See :class:`ModelRecord`.
    calibration : Calibration or None
        Its calibration.
    include_backbone : bool, default False
        Put the backbone's weights in too; otherwise the file names them and holds their fingerprint. A ``preprocess``
        that was given by hand can't be put in.
    force : bool, default False
        Replace an existing file.

    Raises
    ------
    SotglpError
        If the file exists and ``force`` is off, or can't be written; if the backbone is to go in and is none that
        open_clip builds by name.
    """
    backbone = model.backbone
    if include_backbone and not is_known(backbone.name):
        raise SotglpError(
            f"the backbone {backbone.name} can't go into the model file, since open_clip can't build it by name: leave "
            "include_backbone off, and give the backbone when the file is loaded"
        )
    record = {
        "format_version": FORMAT_VERSION,
        "classes": list(model.class_names) if classes is None else classes,
        "kind": model.kind,
        "model": model.config.model_dump(),
        "training": training.model_dump() if training else None,
        "backbone": {
            "name": backbone.name,
            "pretrained": backbone.pretrained,
            "seed": backbone.seed,
            "image_size": list(backbone.image_size),
            "fingerprint": backbone.fingerprint,
            "quick_gelu": backbone.quick_gelu,
            "preprocess": backbone.preprocess_settings,
            "patch_attention": backbone.patch_attention,
        },
        "history": history or [],
        "calibration": calibration_record(calibration),
        "versions": installed_versions(),
    }
    tensors = model.kept_tensors() | shot_tensors(model.shots) | calibration_tensors(calibration)
    if include_backbone:
        tensors |= {BACKBONE_PREFIX + name: tensor for name, tensor in backbone.clip.state_dict().items()}
    write_tensors(path, tensors, record, force=force)


def read_record(path: Path) -> ModelRecord:
    """What a model file tells, without its weights.

    Raises
    ------
    SotglpError
        If the file is missing, damaged, foreign or written by a newer version.
    """
    return _checked_record(path, read_tensors(path, "model file", prefix=NO_TENSOR)[1])


def load_model(
    path: Path,
    *,
    backbone: Backbone | None = None,
    pretrained: str | None = None,
    device: str | torch.device = "cpu",
) -> tuple[AdaptedModel, ModelRecord]:
    """Read a model file and put it on its backbone.

    Parameters
    ----------
    path : Path
        The file.
    backbone : Backbone or None
        A backbone at hand; None loads the one that the file names.
    pretrained : str or None
        Tag or file to load the backbone's weights from, if not the place that the file names.
    device : str or torch.device, default "cpu"
        Where a loaded backbone goes.

    Raises
    ------
    SotglpError
        If the file can't be read, or the backbone is not the one that the model was trained on.
    """
    record = read_record(path)
    if backbone is None:
        backbone = _load_backbone(path, record, pretrained, device)
    if backbone.fingerprint != record.backbone["fingerprint"]:
        trained_on, given = (text[:19] for text in (record.backbone["fingerprint"], backbone.fingerprint))
        raise SotglpError(
            f"{path} was trained on other weights of {record.backbone['name']} ({trained_on}..., not {given}...): "
            "give the right ones with --pretrained (pretrained=, backbone=)"
        )
    if record.backbone.get("quick_gelu", backbone.quick_gelu) != backbone.quick_gelu:
        trained_with, has = (
            "QuickGELU" if quick else "GELU" for quick in (not backbone.quick_gelu, backbone.quick_gelu)
        )
        raise SotglpError(
            f"{path} was trained on {record.backbone['name']} with {trained_with}, and the backbone given has {has}: "
            "load it with the right activation (quick_gelu=)"
        )
    patch_attention = record.backbone.get("patch_attention", "value")
    if patch_attention != backbone.patch_attention:
        raise SotglpError(
            f"{path} was trained on {patch_attention} patch tokens of {record.backbone['name']}, and the backbone "
            f"given has {backbone.patch_attention} ones: load it with the right ones (patch_attention=)"
        )
    names = [label_text(label) for label in record.classes]
    if isinstance(record.model, ModelConfig):
        _check_prompts(path, record.model, len(names), backbone)
    model = build_model(backbone, names, record.model)
    learned, _ = read_tensors(path, "model file", prefix=model.kept or NO_TENSOR)
    shots, _ = read_tensors(path, "model file", prefix=SHOTS_PREFIX)
    try:
        model.restore(learned)
        model.shots = restored_shots(shots, model)
    except SotglpError as error:
        raise SotglpError(f"{path} is damaged: {error}") from error
    return model.eval(), record


def load_calibration(path: Path, model: AdaptedModel, record: ModelRecord) -> Calibration | None:
    """Read the calibration of a model that :func:`load_model` read from the same file; None if it has none.

    Raises
    ------
    SotglpError
        If it is damaged.
    """
    if record.calibration is None:
        return None
    tensors, _ = read_tensors(path, "model file", prefix=calibration_prefixes(record.calibration))
    try:
        return restored_calibration(record.calibration, tensors, model)
    except SotglpError as error:
        raise SotglpError(f"{path} is damaged: {error}") from error


def _check_prompts(path: Path, settings: ModelConfig, n_classes: int, backbone: Backbone) -> None:
    """Refuse numbers of prompts that the file doesn't hold, before a model takes the memory that they ask for."""
    text = backbone.text
    of_one = (len(template_tokens(settings.template, text.context_length)), text.width)
    expected: dict[str, tuple[int, ...]] = {"global_prompts": (settings.n_global_prompts, *of_one)}
    if settings.branches != "global":
        n_owners = 1 if settings.local_contexts == "shared" else n_classes
        expected["local_prompts"] = (n_owners, settings.n_local_prompts, *of_one)
    found, _ = read_tensors(path, "model file", prefix=tuple(expected))
    for name, shape in expected.items():
        if name not in found or tuple(found[name].shape) != shape:
            raise SotglpError(f"{path} is damaged: its {name} is missing or has another shape than its settings say")


def _load_backbone(path: Path, record: ModelRecord, pretrained: str | None, device: str | torch.device) -> Backbone:
    known = BackboneRecord(**record.backbone)
    if not is_known(known.name):
        raise SotglpError(
            f"{path} was trained on the backbone {known.name}, which open_clip can't build by name: give it with "
            "backbone= in Python"
        )
    carried, _ = read_tensors(path, "model file", prefix=BACKBONE_PREFIX)
    if not carried:
        if pretrained is None and str(known.pretrained).startswith(("//", "\\\\")):
            raise SotglpError(
                f"{path} names weights on another computer ({known.pretrained}), which is not asked for them on a "
                "file's word: give them with --pretrained (pretrained=)"
            )
        return Backbone.load(
            known.name,
            pretrained or known.pretrained or "none",
            image_size=known.image_size[0],
            device=device,
            seed=known.seed or 0,
            quick_gelu=known.quick_gelu,
            patch_attention=known.patch_attention,
        )
    weights = {key.removeprefix(BACKBONE_PREFIX): value for key, value in carried.items()}
    # Checked before the model takes its memory, which may be a thousand times the file's size.
    if {key: value.shape for key, value in weights.items()} != weight_shapes(known.name, known.image_size[0]):
        raise SotglpError(f"{path} is damaged: the weights in it are not those of {known.name}")
    clip = build_clip(known.name, "none", image_size=known.image_size[0], seed=0, quick_gelu=known.quick_gelu)
    clip.load_state_dict(weights)
    if known.preprocess is not None:
        set_model_preprocess_cfg(clip, known.preprocess.model_dump())
    return Backbone(
        clip,
        name=known.name,
        pretrained=known.pretrained,
        seed=known.seed,
        patch_attention=known.patch_attention,
    ).to(device)


def _checked_record(path: Path, raw: dict[str, Any]) -> ModelRecord:
    written_by = raw.get("format_version")
    if isinstance(written_by, int) and written_by > FORMAT_VERSION:
        raise SotglpError(
            f"{path} has format {written_by}, but this sotglp reads up to {FORMAT_VERSION}: update sotglp"
        )
    kind = raw.get("kind", SOTGLP.kind)
    if not isinstance(kind, str) or kind not in KINDS:
        raise SotglpError(
            f"{path} holds a model of kind {short_repr(kind)}, which this sotglp does not know: update sotglp"
        )
    try:
        record = ModelRecord(
            classes=list(raw["classes"]),
            model=checked(KINDS[kind].Config, raw["model"]),
            training=checked(TrainConfig, raw["training"]) if raw["training"] else None,
            backbone=BackboneRecord(**raw["backbone"]).model_dump(mode="json", exclude_unset=True),
            history=checked_history(raw["history"]),
            calibration=_checked_calibration(path, raw),
            versions=dict(raw["versions"]),
        )
        if not all(isinstance(label, str | int | float) for label in record.classes):
            raise TypeError("class labels")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([error.title.removesuffix("Record").lower(), *map(str, first["loc"])])
        raise SotglpError(
            f"{path} can't be read as a model file: its record is damaged ({where}: {first['msg'].lower()})"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise SotglpError(f"{path} can't be read as a model file: its record is damaged ({error})") from error
    return record


def _checked_calibration(path: Path, raw: dict[str, Any]) -> CalibrationRecord | None:
    if raw["format_version"] == 1:
        if raw["threshold"] is not None:
            message = f"{path} has a threshold of an older sotglp, which does not tell how sure it is: calibrate again"
            warnings.warn(message, SotglpWarning, stacklevel=2)
        return None
    return CalibrationRecord(**raw["calibration"]) if raw["calibration"] is not None else None
