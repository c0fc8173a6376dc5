"""A trained model as one ONNX file, checked against the model before it is there."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sotglp.errors import SotglpError
from sotglp.export.graph import ClassifierGraph, traced
from sotglp.features.encode import EncodedImages
from sotglp.features.views import in_order
from sotglp.files.atomic import check_output, write_file
from sotglp.files.versions import RESULTS_DEPEND_ON, installed_versions
from sotglp.images.image_set import ImageSet
from sotglp.images.views import load_batches
from sotglp.methods.base import AdaptedModel
from sotglp.model_file.record import CalibrationRecord
from sotglp.runtime.model import PortableModel
from sotglp.runtime.record import FORMAT_VERSION, METADATA_KEY
from sotglp.scoring import ood
from sotglp.scoring.temperature import tempered
from sotglp.settings import InferenceConfig, ModelConfig
from sotglp.transport.plans import class_mass, shares

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4
"""Largest difference from the model that is let pass; of OOD scores above 1, in parts of the score."""

TIE = 1e-5
"""Cosines of patches that differ by less may change places by rounding."""

MAX_BYTES = 2**31 - 2**22
"""Protobuf, which ONNX files are, ends at 2 GiB; some room is left for the graph itself."""

NOISE_IMAGES = 8
NOISE_SEED = 0
CHECK_BATCH = 7
"""Another number than the graph was traced with."""

_NEWER_TORCH = "take a newer one (2.14 was tried)"

_WRITTEN_WITH = (*RESULTS_DEPEND_ON, "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """An exported file, and how far it is from the model.

    Attributes
    ----------
    n_bytes : int
        Size of the file.
    n_checked : int
        Images that both looked at.
    differences : dict
        Largest difference in ``probabilities``, ``ood_score`` (over the score, where that is above 1) and ``maps``.
    same_labels : float
        Share of these images that get the same label.
    quantized : bool
        Whether weights are in eight bits.
    """

    n_bytes: int
    n_checked: int
    differences: dict[str, float]
    same_labels: float
    quantized: bool


def export_model(
    path: Path,
    model: AdaptedModel,
    *,
    classes: list[str | int | float] | None = None,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    calibration: CalibrationRecord | None = None,
    check: ImageSet | None = None,
    int8: bool = False,
    force: bool = False,
) -> Exported:
    """Write a model as an ONNX file that needs neither torch nor the text tower.

    The file takes ``images``, preprocessed as its record describes, (B, 3, H, W) float32 for any B, and gives
    ``probabilities`` (B, C) at the calibrated temperature, ``ood_score`` (B,), ``label_index`` (B,) and, for a model
    with a transport plan, ``maps`` (B, N, P): the share of its mass that each prompt of the most probable class puts on
    each patch. Maps of all classes would be C times as many numbers, 3 MB an image for 1000 classes on ViT-B/16.

    It is compared with the model on seeded noise, and on images of one's own, before it gets its name.

    Parameters
    ----------
    path : Path
        Where the file goes.
    model : AdaptedModel
        A trained model of any method.
    classes : list or None
        Labels, if other than the model's class names.
    inference : InferenceConfig
        Names the OOD score and its temperature; the rest says nothing here.
    calibration : CalibrationRecord or None
        The model's: its temperature goes into the probabilities, its threshold into the record if it is for that score.
    check : ImageSet or None
        Further images to compare on.
    int8 : bool, default False
        Keep the weights of linear layers in eight bits, each output channel with a scale of its own. What it costs is
        measured, not bounded.
    force : bool, default False
        Replace an existing file.

    Returns
    -------
    Exported
        What was written, and the largest differences.

    Raises
    ------
    SotglpError
        If the file exists and ``force`` is off, or can't be written; if the model is one that a graph can't hold; if
        what it computes differs by more than ``TOLERANCE``; if a package that export needs is missing.
    """
    check_output(path, force=force)
    _check_packages()
    _check_exportable(model)
    temperature = calibration.temperature if calibration else 1.0
    graph = ClassifierGraph(model.eval(), inference.ood_method, inference.temperature, temperature)
    if int8 and not _linear_layers(graph):
        raise SotglpError("--int8 keeps linear layers in eight bits, and a ResNet is made of others: leave it out")
    file = _as_onnx(graph, model)
    labels: list[str | int | float] = [*model.class_names] if classes is None else classes
    record = _record(model, labels, inference, calibration)
    images = _checked_images(model, check)
    exact = _serialized(file, record)
    n_checked, differences, same_labels = _compared(exact, str(path), model, images, inference, temperature)
    if not all(difference <= TOLERANCE for difference in differences.values()):
        worst = max(differences, key=lambda what: np.nan_to_num(differences[what], nan=np.inf))
        raise SotglpError(
            f"{path} is not written, since its {worst} would differ from the model's by {differences[worst]:.2g} and "
            f"{TOLERANCE:g} is the most: where transport has a small epsilon, it may need more sweeps than a file does"
        )
    content = exact
    if int8:
        content = _serialized(_quantized(file), record | {"quantized": True})
        n_checked, differences, same_labels = _compared(content, str(path), model, images, inference, temperature)
    write_file(path, lambda beside: beside.write_bytes(content), force=force)
    return Exported(len(content), n_checked, differences, same_labels, int8)


def _check_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise SotglpError(f"export needs the package {name}: install it with pip install 'sotglp[onnx]'")
    if not hasattr(torch, "while_loop"):
        raise SotglpError(f"torch {torch.__version__} is too old for export: {_NEWER_TORCH}")


def _check_exportable(model: AdaptedModel) -> None:
    """Refuse what no graph can hold, before long work."""
    if model.backbone.preprocess_settings is None:
        raise SotglpError(
            "a backbone with a preprocess of one's own can't be exported, since a file describes open_clip's alone: "
            "build it without preprocess"
        )
    config = model.config
    if isinstance(config, ModelConfig) and config.relaxation is not None and config.matching == "transport":
        raise SotglpError(
            "a model with relaxed marginals can't be exported, since they take Newton's method, which a file of fixed "
            "steps can't hold: fit it with relaxation=none"
        )
    weights = model.backbone.clip.state_dict()
    n_bytes = sum(tensor.nbytes for name, tensor in weights.items() if name.startswith("visual."))
    if n_bytes > MAX_BYTES:
        raise SotglpError(
            f"{model.backbone.name} can't be exported, since its image tower takes {n_bytes / 2**30:.1f} GiB and an "
            "ONNX file ends at 2 GiB: take a smaller backbone"
        )


def _linear_layers(graph: ClassifierGraph) -> bool:
    return any(isinstance(module, torch.nn.MultiheadAttention) for module in graph.modules())


def _as_onnx(graph: ClassifierGraph, model: AdaptedModel) -> onnx.ModelProto:
    import onnx_ir

    logger = logging.getLogger("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations inside the exporter
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            written = traced(graph, model.backbone.image_size)
        except torch.onnx.OnnxExporterError as error:
            raise SotglpError(f"torch {torch.__version__} can't write this model: {_NEWER_TORCH}") from error
        finally:
            logger.setLevel(level)
    return onnx_ir.to_proto(written)


def _record(
    model: AdaptedModel,
    classes: list[str | int | float],
    inference: InferenceConfig,
    calibration: CalibrationRecord | None,
) -> dict[str, Any]:
    backbone = model.backbone
    threshold = inference.threshold_of(calibration)
    return {
        "format_version": FORMAT_VERSION,
        "kind": model.kind,
        "classes": classes,
        "preprocessing": backbone.preprocess_settings,
        "patch_grid": list(backbone.patch_grid),
        "ood_method": inference.ood_method,
        "ood_temperature": inference.temperature,
        "temperature": calibration.temperature if calibration else 1.0,
        "threshold": threshold,
        "calibration": calibration.model_dump(mode="json") if calibration else None,
        "quantized": False,
        "backbone": {
            "name": backbone.name,
            "pretrained": backbone.pretrained,
            "image_size": list(backbone.image_size),
            "fingerprint": backbone.fingerprint,
        },
        "versions": installed_versions(_WRITTEN_WITH),
    }


def _serialized(file: onnx.ModelProto, record: dict[str, Any]) -> bytes:
    import onnx.helper

    onnx.helper.set_model_props(file, {METADATA_KEY: json.dumps(record, sort_keys=True)})
    content: bytes = file.SerializeToString(deterministic=True)
    return content


def _quantized(file: onnx.ModelProto) -> onnx.ModelProto:
    """The same with products by constant matrices in eight bits, but for cosines."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it recommends its own preparation, which the exporter's optimiser stands for
        try:
            quantize_dynamic(
                file,
                target,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_comparisons(file),
            )
        finally:
            root.setLevel(level)
        return onnx.load(target)


def _comparisons(file: onnx.ModelProto) -> list[str]:
    """Names of the products behind the first length of a feature: cosines, which differ in the second digit."""
    behind: set[str] = set()
    found = []
    for node in file.graph.node:
        if node.op_type == "ReduceL2" or not behind.isdisjoint(node.input):
            behind.update(node.output)
            found += [node.name] if node.op_type == "MatMul" else []
    return found


def _checked_images(model: AdaptedModel, check: ImageSet | None) -> list[Tensor]:
    """Batches of noise, and of the images that were given, preprocessed."""
    height, width = model.backbone.image_size
    generator = torch.Generator().manual_seed(NOISE_SEED)
    noise = torch.randn(NOISE_IMAGES, 3, height, width, generator=generator)
    batches = list(noise.split(CHECK_BATCH))
    if check is not None:
        loaded = load_batches(check, model.backbone.preprocess, in_order(len(check), CHECK_BATCH))
        batches += [pixels for _, pixels in loaded]
    return batches


def _compared(
    content: bytes,
    name: str,
    model: AdaptedModel,
    batches: list[Tensor],
    inference: InferenceConfig,
    temperature: float,
) -> tuple[int, dict[str, float], float]:
    """Number of images, largest differences between file and model, and the share of equal labels."""
    portable = PortableModel.from_bytes(content, name)
    largest: dict[str, float] = {}
    same_labels = []
    for (probabilities, scores, maps, likeness), pixels in _said_by(model, batches, inference, temperature):
        got = portable.run(pixels.numpy())
        same = got[2] == probabilities.argmax(axis=1)
        same_labels += same.tolist()
        found = {
            "probabilities": np.abs(got[0] - probabilities).max(),
            "ood_score": (np.abs(got[1] - scores) / np.maximum(np.abs(scores), 1)).max(),
        }
        if maps is not None:
            # Where two classes are equally probable but for rounding, maps are those of either.
            found["maps"] = max(map(_apart, got[3][same], maps[same], likeness[same]), default=0.0)
        largest = {what: float(np.maximum(value, largest.get(what, 0))) for what, value in found.items()}
    return len(same_labels), largest, float(np.mean(same_labels))


def _apart(one: NDArray[np.float32], other: NDArray[np.float32], likeness: NDArray[np.float32]) -> float:
    """Largest difference of maps (N, P), but for patches (P,) that are equally like the class: either may be kept."""
    differences = np.abs(one - other)
    exchanged = differences.max(axis=0) > TOLERANCE
    if exchanged.any() and np.ptp(likeness[exchanged]) < TIE:
        return 0.0
    return float(differences.max())


def _said_by(
    model: AdaptedModel, batches: list[Tensor], inference: InferenceConfig, temperature: float
) -> Iterator[tuple[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any]], Tensor]]:
    """What the model itself says of each batch.

    Probabilities, OOD scores, and of the most probable class the maps and the cosine of each patch.
    """
    with torch.no_grad():
        text = model.encode_text()
        for pixels in batches:
            encoded = EncodedImages(*model.backbone.encode_image(pixels))
            outputs = model.compare(encoded, text)
            evidence = ood.Evidence(outputs, model, encoded)
            scores = ood.score_evidence(evidence, inference.ood_method, inference.temperature)
            probabilities = model.probabilities(outputs)
            label = probabilities.argmax(dim=-1)
            likeness = outputs.patch_logits[torch.arange(len(pixels)), :, label].cpu().numpy()
            maps = None
            if outputs.plan is not None and outputs.support is not None:
                mass = class_mass(outputs.plan, outputs.support, label, encoded.patch_tokens.shape[1])
                maps = shares(mass, dim=1).mT.cpu().numpy()
            yield (tempered(probabilities.cpu().numpy(), temperature), scores.cpu().numpy(), maps, likeness), pixels
