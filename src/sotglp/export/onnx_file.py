"""Export of a trained model to one ONNX file, which is compared with the model before it is written."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sotglp.errors import SotglpError
from sotglp.export.comparison import TOLERANCE, Reference
from sotglp.export.graph import ClassifierGraph, trace
from sotglp.export.quantization import quantize_convolutions, quantize_products
from sotglp.files.atomic import check_output, write_file
from sotglp.files.versions import RESULTS_DEPEND_ON, installed_versions
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.model_file.record import CalibrationRecord
from sotglp.runtime.model import PortableModel
from sotglp.runtime.record import FORMAT_VERSION, METADATA_KEY
from sotglp.settings import InferenceConfig, ModelConfig, OodMethod

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 2**31 - 2**22
"""Protobuf limits ONNX files to 2 GiB; the rest is for the graph itself."""

_NEWER_TORCH = "install a newer version (tested with 2.14)"

_WRITTEN_WITH = (*RESULTS_DEPEND_ON, "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """Size of an exported file, and its differences from the model.

    Attributes
    ----------
    n_bytes : int
        Size of the file.
    n_checked : int
        Number of images of the comparison.
    differences : dict
        Largest absolute differences of ``probabilities``, ``ood_score`` (relative, if the score is above 1) and
        ``maps``.
    same_labels : float
        Share of these images with the same label.
    quantized : bool
        Whether weights are stored in 8 bits.
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
    """Export a model to an ONNX file that runs without PyTorch.

    The input ``images``, (B, 3, H, W) float32 for any B, is preprocessed as the record in the file describes. The
    outputs are ``probabilities`` (B, C) at the calibrated temperature, ``ood_score`` (B,), ``label_index`` (B,) and,
    for a model with a transport plan, ``maps`` (B, N, P): the share of the mass of each prompt of the most probable
    class on each patch. The file is compared with the model on random noise, and on ``check``, before it is written.

    Parameters
    ----------
    path : Path
        Output file.
    model : AdaptedModel
        A trained model of any method.
    classes : list or None
        Labels, if they differ from the model's class names.
    inference : InferenceConfig
        OOD score and its temperature; other settings are ignored.
    calibration : CalibrationRecord or None
        Calibration of the model: its temperature is applied to the probabilities, its threshold is stored if it
        belongs to this OOD score.
    check : ImageSet or None
        Further images for the comparison, and for the calibration of ``int8``.
    int8 : bool, default False
        Quantize weights per output channel: those of a transformer's linear layers to 8 bits, or those of a
        convolutional tower's convolutions, except the first, to 7 bits, with the ranges of feature maps on some of the
        images of ``check``, which it requires. Differences are reported, not limited; those of a convolutional tower on
        ``check`` only.
    force : bool, default False
        Replace an existing file.

    Returns
    -------
    Exported
        Size of the file and largest differences.

    Raises
    ------
    SotglpError
        If the file exists and ``force`` is False, or is not writable; if the model can't be expressed as a graph; if
        the outputs differ by more than ``TOLERANCE``; if a package that export needs is missing.
    """
    check_output(path, force=force)
    _check_packages()
    _check_exportable(model, inference.ood_method)
    if calibration and calibration.calibrator != "temperature":
        raise SotglpError(
            f"probabilities calibrated by {calibration.calibrator} can't be exported: calibrate with temperature"
        )
    temperature = calibration.temperature if calibration else 1.0
    graph = ClassifierGraph(model.eval(), inference.ood_method, inference.temperature, temperature)
    is_convolutional = not _has_attention(graph)
    if int8 and is_convolutional and not check:
        raise SotglpError(
            f"--int8 needs images for {model.backbone.name}, since the ranges of a convolutional tower's feature maps "
            "are measured on images: give a folder with --check DIR"
        )
    file = _as_onnx(graph, model)
    labels: list[str | int | float] = [*model.class_names] if classes is None else classes
    record = _record(model, labels, inference, calibration)
    reference = Reference(model, check, inference, temperature)
    content = _serialized(file, record)
    comparison = reference.compare(PortableModel.from_bytes(content, str(path)))
    largest = comparison.differences
    if not all(difference <= TOLERANCE for difference in largest.values()):
        worst = max(largest, key=lambda name: np.nan_to_num(largest[name], nan=np.inf))
        raise SotglpError(
            f"{path} is not written, since its {worst} would differ from the model's by {largest[worst]:.2g}, more "
            f"than {TOLERANCE:g}: with a small epsilon, transport may need more iterations than a graph contains"
        )
    if int8:
        if is_convolutional:
            smaller = quantize_convolutions(file, reference.calibration_batches())
        else:
            smaller = quantize_products(file)
        content = _serialized(smaller, record | {"quantized": True})
        # Noise is outside the ranges of images.
        comparison = reference.compare(PortableModel.from_bytes(content, str(path)), with_noise=not is_convolutional)
    write_file(path, lambda beside: beside.write_bytes(content), force=force)
    return Exported(len(content), *comparison, int8)


def _check_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise SotglpError(f"export needs the package {name}: install it with pip install 'sotglp[onnx]'")
    if not hasattr(torch, "while_loop"):
        raise SotglpError(f"torch {torch.__version__} is too old for export: {_NEWER_TORCH}")


def _check_exportable(model: AdaptedModel, ood_method: OodMethod) -> None:
    """Refuse models and scores that a graph can't express, before the slow part."""
    if ood_method == "vim":
        raise SotglpError(
            "the score vim can't be exported, since its scale comes from logits of the shots: choose another score"
        )
    if ood_method == "neglabel":
        raise SotglpError(
            "the score neglabel can't be exported, since it compares with thousands of texts: choose another"
        )
    if model.backbone.preprocess_settings is None:
        raise SotglpError(
            "a backbone with custom preprocessing can't be exported, since the file describes open_clip's only: "
            "build it without preprocess"
        )
    config = model.config
    if isinstance(config, ModelConfig) and config.relaxation is not None and config.matching == "transport":
        raise SotglpError(
            "a model with relaxed marginals can't be exported, since Newton's method can't be expressed as a graph: "
            "fit it with relaxation=null"
        )
    weights = model.backbone.clip.state_dict()
    n_bytes = sum(tensor.nbytes for name, tensor in weights.items() if name.startswith("visual."))
    if n_bytes > MAX_BYTES:
        raise SotglpError(
            f"{model.backbone.name} can't be exported, since its image tower has {n_bytes / 2**30:.1f} GiB and ONNX "
            "files are limited to 2 GiB: use a smaller backbone"
        )


def _has_attention(graph: ClassifierGraph) -> bool:
    return any(isinstance(module, torch.nn.MultiheadAttention) for module in graph.modules())


def _as_onnx(graph: ClassifierGraph, model: AdaptedModel) -> onnx.ModelProto:
    import onnx_ir

    logger = logging.getLogger("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            written = trace(graph, model.backbone.image_size)
        except torch.onnx.OnnxExporterError as error:
            raise SotglpError(f"torch {torch.__version__} can't export this model: {_NEWER_TORCH}") from error
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
    value_ranges = {kind: list(limits) for kind, limits in model.value_ranges.items()}
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
        **({"value_ranges": value_ranges} if value_ranges else {}),
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
