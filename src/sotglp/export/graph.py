"""What an exported file computes, traced from the model itself: pixels in; probabilities, OOD score and maps out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sotglp.backbone import Backbone
from sotglp.backbone.readers import make_reader
from sotglp.features.encode import EncodedImages
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring import ood
from sotglp.settings import OodMethod
from sotglp.transport.plans import class_mass, shares

if TYPE_CHECKING:
    import onnx_ir

INPUT = "images"
OUTPUTS = PROBABILITIES, OOD_SCORE, LABEL_INDEX, MAPS = "probabilities", "ood_score", "label_index", "maps"

LOG_TINY = -87.33654475055310
"""Logarithm of the smallest normal float32, the least probability of :func:`sotglp.scoring.temperature.tempered`."""

LARGEST_FOLDED = 2**40
"""No constant of a model is too large to be computed when the file is written."""


class ClassifierGraph(nn.Module):
    """A trained model with its text features as constants, without values: what :func:`traced` writes down.

    Everything is on the meta device. There the image tower takes all images of a batch at once, as on a GPU, where a
    CPU takes some of them alone, by a number that a graph for any batch can't know.

    Parameters
    ----------
    model : AdaptedModel
        The model; it stays as it is.
    ood_method : str
        See :func:`sotglp.ood.score`.
    ood_temperature : float
        Temperature of that score.
    temperature : float
        Calibrated temperature of the probabilities.
    """

    def __init__(self, model: AdaptedModel, ood_method: OodMethod, ood_temperature: float, temperature: float) -> None:
        super().__init__()
        with torch.no_grad():
            text = model.encode_text()
        memo: dict[int, Any] = {}
        for parameter in model.parameters():
            memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for buffer in model.buffers():
            memo[id(buffer)] = buffer.to("meta")
        memo[id(model.backbone)] = _ImageTower(model.backbone, memo)
        memo[id(model.shots)] = model.shots and model.shots.fitted()
        self.model: AdaptedModel = copy.deepcopy(model, memo)
        self.model.traceable = True
        self.register_buffer("global_text", text.global_.to("meta"))
        self.register_buffer("local_text", text.local.to("meta"))
        self.global_text: Tensor
        self.local_text: Tensor
        self.ood_method, self.ood_temperature, self.temperature = ood_method, ood_temperature, temperature
        own = {f"model.{name}": value for name, value in (*model.named_parameters(), *model.named_buffers())}
        texts = {"global_text": text.global_, "local_text": text.local}
        self.values: dict[str, Tensor] = {name: value.detach().cpu() for name, value in (own | texts).items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """What there is to say of preprocessed images (B, 3, H, W).

        Returns
        -------
        dict
            ``probabilities`` (B, C) at the calibrated temperature, ``ood_score`` (B,), ``label_index`` (B,), the most
            probable class, and ``maps`` (B, N, P): the share of its mass that each prompt of that class puts on each
            patch. A model without a transport plan has no maps.
        """
        encoded = EncodedImages(*self.model.backbone.encode_image(images))
        outputs = self.model.compare(encoded, TextFeatures(self.global_text, self.local_text))
        probabilities = self.model.probabilities(outputs)
        label = probabilities.argmax(dim=-1)
        if self.temperature != 1:
            logarithms = self.model.logits(outputs).log_softmax(dim=-1).clamp(min=LOG_TINY)
            probabilities = torch.softmax(logarithms / self.temperature, dim=-1)
        mass = None
        if outputs.plan is not None and outputs.support is not None:
            mass = class_mass(outputs.plan, outputs.support, label, encoded.patch_tokens.shape[1])
        evidence = ood.Evidence(outputs, self.model, encoded)
        scores = ood.score_evidence(evidence, self.ood_method, self.ood_temperature)
        said = {PROBABILITIES: probabilities, OOD_SCORE: scores, LABEL_INDEX: label}
        if mass is not None:
            said[MAPS] = shares(mass, dim=1).transpose(1, 2)
        return said


class _ImageTower(Backbone):
    """What a graph holds of a backbone: its image tower, and its scale as a number."""

    def __init__(self, backbone: Backbone, memo: dict[int, Any]) -> None:
        nn.Module.__init__(self)
        self.clip = nn.Module()
        visual: Any = copy.deepcopy(backbone.clip.visual, memo)
        self.clip.visual = visual
        self.name, self.pretrained, self.patch_attention = backbone.name, backbone.pretrained, backbone.patch_attention
        self.tower = make_reader(visual, self.patch_attention)
        self._scale = backbone.logit_scale

    @property
    def logit_scale(self) -> float:
        return self._scale

    @property
    def device(self) -> torch.device:
        # Mixed precision, which is off, knows no meta device.
        return torch.device("cpu")

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.tower.encode(images)


def traced(graph: ClassifierGraph, image_size: tuple[int, int]) -> onnx_ir.Model:
    """The graph in ONNX's words, for any number of images, with all its values.

    Parameters
    ----------
    graph : ClassifierGraph
        What to trace.
    image_size : tuple of int
        Height and width of an image.
    """
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
    from onnxscript import optimizer

    example = torch.empty(2, 3, *image_size, device="meta")
    with torch.no_grad():
        program = torch.export.export(
            graph.eval(), (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}}, strict=False
        )
        written = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert written is not None  # only an export to a file gives nothing
    held = written.model.graph.initializers
    written.apply_weights({name: value for name, value in graph.values.items() if name in held})
    model: onnx_ir.Model = optimizer.optimize(
        written.model, input_size_limit=LARGEST_FOLDED, output_size_limit=LARGEST_FOLDED
    )
    # Where a node came from names files of whoever exported it.
    ClearMetadataAndDocStringPass()(model)
    RemoveUnusedNodesPass()(model)
    for value, name in zip((*model.graph.inputs, *model.graph.outputs), (INPUT, *OUTPUTS), strict=False):
        value.name = name
        value.shape = onnx_ir.Shape([onnx_ir.SymbolicDim("batch"), *list(value.shape or ())[1:]])
    return model
