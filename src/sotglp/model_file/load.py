"""Load a model file onto its backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from open_clip.model import set_model_preprocess_cfg
from torch import Tensor

from sotglp.backbone import Backbone
from sotglp.backbone.architectures import is_known
from sotglp.backbone.precision import choose_device
from sotglp.backbone.sources import CONFIG_FILE, WEIGHTS, canonical_name, has_source, is_present
from sotglp.backbone.weights import build_clip, tokenizer_loader, weight_shapes
from sotglp.errors import SotglpError
from sotglp.files.header import open_tensor_file
from sotglp.files.tensors import read_tensors
from sotglp.methods.base import AdaptedModel
from sotglp.methods.fused_model import RESIDUAL
from sotglp.methods.prompts import template_tokens
from sotglp.methods.registry import build_model
from sotglp.methods.shot_memory import ShotMemory
from sotglp.methods.shot_patches import ShotPatches
from sotglp.model_file.record import BackboneRecord, CalibrationRecord, ModelRecord, parse_record
from sotglp.model_file.save import (
    BACKBONE_PREFIX,
    CALIBRATION_PREFIX,
    FOLD_PREFIX,
    MAP_TENSORS,
    PATCH_TENSORS,
    SHOT_TENSORS,
    SHOTS_PREFIX,
)
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.conformity import TrueClasses
from sotglp.scoring.probability_map import ProbabilityMap
from sotglp.settings import PromptConfig


class LoadedModel(NamedTuple):
    """Contents of a model file; ``calibration`` is None if the model isn't calibrated."""

    model: AdaptedModel
    record: ModelRecord
    calibration: Calibration | None


def load_model(
    path: Path,
    *,
    backbone: Backbone | None = None,
    pretrained: str | None = None,
    device: str | torch.device = "cpu",
) -> LoadedModel:
    """Load a model, its record and its calibration from a model file.

    Parameters
    ----------
    path : Path
        The file.
    backbone : Backbone or None
        Backbone of the model; None loads the one that the file names.
    pretrained : str or None
        Tag or file of the backbone's weights, in place of the one that the file names.
    device : str or torch.device, default "cpu"
        Device of a loaded backbone.

    Raises
    ------
    SotglpError
        If the file can't be read, or the backbone isn't the one that the model was trained on.
    """
    # Read once, so that record and tensors belong together even if the file is replaced meanwhile.
    tensors, raw = read_tensors(path, "model file")
    record = parse_record(path, raw)
    if backbone is None:
        backbone = _load_backbone(path, record, _named(tensors, BACKBONE_PREFIX), pretrained, device)
    _check_backbone(path, record, backbone)
    names = record.class_names
    if isinstance(record.model, PromptConfig):
        _check_prompts(path, record.model, len(names), backbone, tensors)
    model = build_model(backbone, names, record.model)
    learned = _named(tensors, (*model.kept, RESIDUAL))
    shots = _named(tensors, SHOTS_PREFIX)
    folds = range(record.calibration.n_folds if record.calibration else 0)
    prefixes = (CALIBRATION_PREFIX, *map(FOLD_PREFIX.format, folds)) if record.calibration else ()
    calibrated = _named(tensors, prefixes)
    try:
        model.restore(learned)
        model.shots = _restored_shots(shots, model)
        model.value_ranges = record.value_ranges
        calibration = _restored_calibration(record.calibration, calibrated, model) if record.calibration else None
    except SotglpError as error:
        raise SotglpError(f"{path} is damaged: {error}") from error
    return LoadedModel(model.eval(), record, calibration)


def carries_backbone(path: Path) -> bool:
    """Whether a model file holds the backbone's weights."""
    with open_tensor_file(path, "model file", "numpy") as (file, _):
        return f"{BACKBONE_PREFIX}logit_scale" in file.keys()  # noqa: SIM118


def _named(tensors: Mapping[str, Tensor], prefix: str | tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_backbone(
    path: Path,
    record: ModelRecord,
    carried: Mapping[str, Tensor],
    pretrained: str | None,
    device: str | torch.device,
) -> Backbone:
    known = BackboneRecord(**record.backbone)
    if pretrained is not None and os.path.isfile(Path(pretrained) / CONFIG_FILE):
        known, pretrained = known.model_copy(update={"name": canonical_name(pretrained)}), WEIGHTS
    if has_source(known.name) and not is_present(known.name):
        raise SotglpError(
            f"{path} names the backbone {known.name}, which isn't on this computer: give its folder, with "
            f"{CONFIG_FILE}, with --pretrained DIR (pretrained=)"
        )
    if not is_known(known.name):
        raise SotglpError(
            f"{path} was trained on the backbone {known.name}, which open_clip can't build by name: give it with "
            "backbone= in Python"
        )
    if not carried:
        if pretrained is None and str(known.pretrained).startswith(("//", "\\\\")):
            raise SotglpError(
                f"{path} names weights on another computer ({known.pretrained}), which sotglp doesn't fetch because a "
                "file names them: give them with --pretrained (pretrained=)"
            )
        loaded = _load_weights(path, known, pretrained, device)
        if known.preprocess is not None:
            loaded.set_preprocess(known.preprocess.model_dump())
        return loaded
    weights = {key.removeprefix(BACKBONE_PREFIX): value for key, value in carried.items()}
    # Checked before the model is built, which may take a thousand times the file's size.
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
        load_tokenizer=tokenizer_loader(known.name, known.pretrained, clip),
    ).to(choose_device(str(device)))


def _load_weights(path: Path, known: BackboneRecord, pretrained: str | None, device: str | torch.device) -> Backbone:
    def load(weights: str) -> Backbone:
        return Backbone.load(
            known.name,
            weights,
            image_size=known.image_size[0],
            device=device,
            seed=known.seed or 0,
            quick_gelu=known.quick_gelu,
            patch_attention=known.patch_attention,
        )

    if pretrained is not None:
        return load(pretrained)
    named = known.pretrained or "none"
    try:
        return load(named)
    except SotglpError as error:
        # A relative path is one from the folder of `fit`, which often is that of the model file.
        if os.path.isfile(path.parent / named):
            return load(str(path.parent / named))
        raise SotglpError(
            f"{path} names the weights {named} of {known.name}, which can't be loaded ({error}): give them with "
            "--pretrained (pretrained=), or fit with --include-backbone"
        ) from error


def _check_backbone(path: Path, record: ModelRecord, backbone: Backbone) -> None:
    name = record.backbone["name"]
    if backbone.fingerprint != record.backbone["fingerprint"]:
        trained_on, given = (text[:19] for text in (record.backbone["fingerprint"], backbone.fingerprint))
        raise SotglpError(
            f"{path} was trained on other weights of {name} ({trained_on}..., not {given}...): give the right ones "
            "with --pretrained (pretrained=, backbone=)"
        )
    if record.backbone.get("quick_gelu", backbone.quick_gelu) != backbone.quick_gelu:
        given, trained_with = ("QuickGELU", "GELU") if backbone.quick_gelu else ("GELU", "QuickGELU")
        raise SotglpError(
            f"{path} was trained on {name} with {trained_with}, and the backbone given has {given}: load it with the "
            "right activation (quick_gelu=)"
        )
    patch_attention = record.backbone.get("patch_attention", "value")
    if patch_attention != backbone.patch_attention:
        raise SotglpError(
            f"{path} was trained on {patch_attention} patch tokens of {name}, and the backbone given has "
            f"{backbone.patch_attention} ones: load it with the right ones (patch_attention=)"
        )


def _check_prompts(
    path: Path, settings: PromptConfig, n_classes: int, backbone: Backbone, tensors: Mapping[str, Tensor]
) -> None:
    """Compare the shapes in the file with its settings, before a model of those settings takes its memory."""
    text = backbone.text
    of_one = (len(template_tokens(settings.template, text.context_length, text.tokenizer)), text.width)
    expected: dict[str, tuple[int, ...]] = {"global_prompts": (settings.n_global_prompts, *of_one)}
    if settings.branches != "global":
        n_owners = 1 if settings.local_contexts == "shared" else n_classes
        expected["local_prompts"] = (n_owners, settings.n_local_prompts, *of_one)
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise SotglpError(f"{path} is damaged: its {name} is missing or has another shape than in its settings")


def _restored_shots(tensors: Mapping[str, Tensor], model: AdaptedModel) -> ShotMemory | None:
    if not tensors:
        return None
    parts = [tensors.get(SHOTS_PREFIX + name) for name in SHOT_TENSORS]
    features, regions, classes = (torch.empty(0) if part is None else part for part in parts)
    fits = features.ndim == 2 and features.shape[1] == model.backbone.embed_dim
    fits = fits and (features.dtype, regions.dtype, classes.dtype) == (torch.float32, torch.float32, torch.int64)
    if not fits or not ((classes >= 0) & (classes < len(model.class_names))).all():
        raise SotglpError("the features of its shots do not fit the backbone or the classes")
    return ShotMemory(features, regions, classes, _restored_patches(tensors, model, len(classes)))


def _restored_patches(tensors: Mapping[str, Tensor], model: AdaptedModel, n_shots: int) -> ShotPatches | None:
    """Return the patch tokens of n shots; None if the file has none, as older ones and those of many classes."""
    parts = {own: tensors.get(SHOTS_PREFIX + name) for own, name in PATCH_TENSORS.items()}
    if all(part is None for part in parts.values()):
        return None
    rows, levels, scales = (torch.empty(0) if part is None else part for part in parts.values())
    shape = (len(rows), model.backbone.n_patches, model.backbone.patch_width)
    fits = (rows.dtype, levels.dtype, scales.dtype) == (torch.int64, torch.int8, torch.float32)
    fits = fits and rows.ndim == 1 and levels.shape == shape and scales.shape == shape[:2]
    if not fits or not (rows.diff() > 0).all() or not ((rows >= 0) & (rows < n_shots)).all():
        raise SotglpError("the patches of its shots do not fit the backbone or the shots")
    if not (scales.isfinite() & (scales > 0)).all():
        raise SotglpError("the patches of its shots are damaged")
    return ShotPatches(rows, levels, scales)


def _restored_calibration(record: CalibrationRecord, tensors: Mapping[str, Tensor], model: AdaptedModel) -> Calibration:
    probabilities = tensors.get(CALIBRATION_PREFIX + "true_probabilities", torch.empty(0, 0))
    folds = tensors.get(CALIBRATION_PREFIX + "folds")
    fits = probabilities.ndim == 1 and probabilities.is_floating_point() and (folds is not None) == (record.n_folds > 0)
    if folds is not None:
        fits = fits and folds.shape == probabilities.shape and folds.dtype == torch.int64
        fits = fits and torch.equal(folds.unique(), torch.arange(record.n_folds))
    fits = fits and len(probabilities) in (0, record.rejection.n)
    if not fits or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise SotglpError("the parts of its calibration do not fit together")
    true_classes = _restored_true_classes(tensors, len(probabilities), len(model.class_names))
    models = []
    for fold in range(record.n_folds):
        prefix = FOLD_PREFIX.format(fold)
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        fold_model = build_model(model.backbone, model.class_names, model.config)
        fold_model.restore(own)
        models.append(fold_model.eval())
    return Calibration(
        record.ood_method,
        record.ood_temperature,
        record.rejection,
        record.temperature,
        probabilities.float().numpy(),
        None if folds is None else folds.numpy(),
        tuple(models),
        true_classes,
        _restored_map(record, tensors),
    )


def _restored_map(record: CalibrationRecord, tensors: Mapping[str, Tensor]) -> ProbabilityMap | None:
    if record.calibrator == "temperature":
        return None
    x, y = (tensors.get(CALIBRATION_PREFIX + name, torch.empty(0)).double().numpy() for name in MAP_TENSORS)
    found = ProbabilityMap(record.calibrator, x, y)
    if not found.is_valid():
        raise SotglpError("the parts of its calibration do not fit together")
    return found


def _restored_true_classes(tensors: Mapping[str, Tensor], n_images: int, n_classes: int) -> TrueClasses | None:
    """Return the true classes of n calibration images; None if the file has none, as before sets per class."""
    parts = [tensors.get(CALIBRATION_PREFIX + name) for name in TrueClasses._fields]
    if all(part is None for part in parts):
        return None
    targets, ranks, masses = (torch.empty(0) if part is None else part for part in parts)
    fits = targets.dtype == ranks.dtype == torch.int64 and masses.dtype == torch.float64
    fits = fits and targets.shape == ranks.shape == masses.shape == (n_images,)
    if not fits or not ((targets >= 0) & (targets < n_classes) & (ranks >= 1) & masses.isfinite()).all():
        raise SotglpError("the parts of its calibration do not fit together")
    return TrueClasses(targets.numpy(), ranks.numpy(), masses.numpy())
