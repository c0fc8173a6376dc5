"""The ONNX graph of a model, traced from it: images in; probabilities, OOD score, label index and maps out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sotglp.backbone import Backbone
from sotglp.backbone.readers import make_reader
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import AdaptedModel, Outputs
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring import ood
from sotglp.settings import OodMethod
from sotglp.transport.plans import class_mass, shares

if TYPE_CHECKING:
    import onnx_ir

INPUT = "images"
OUTPUTS = PROBABILITIES, OOD_SCORE, LABEL_INDEX, MAPS = "probabilities", "ood_score", "label_index", "maps"

LOG_TINY = -87.33654475055310
"""Logarithm of the smallest normal float32, the lower bound in :func:`sotglp.scoring.temperature.tempered`."""

LARGEST_FOLDED = 2**40
"""Bytes of a constant that is folded when the graph is written: any."""


class Computed(NamedTuple):
    """Outputs for B images, with the probabilities at temperature 1; ``maps`` is None without a transport plan."""

    outputs: Outputs
    probabilities: Tensor
    ood_score: Tensor
    label_index: Tensor
    maps: Tensor | None


def compute(
    model: AdaptedModel, images: Tensor, text: TextFeatures, ood_method: OodMethod, ood_temperature: float
) -> Computed:
    """Compute what an exported file returns for preprocessed images (B, 3, H, W)."""
    encoded = EncodedImages(*model.backbone.encode_image(images))
    outputs = model.compare(encoded, text)
    probabilities = model.probabilities(outputs)
    label = probabilities.argmax(dim=-1)
    maps = None
    if outputs.plan is not None and outputs.support is not None:
        mass = class_mass(outputs.plan, outputs.support, label, encoded.patch_tokens.shape[1])
        maps = shares(mass, dim=1).transpose(1, 2)
    scores = ood.score_evidence(ood.Evidence(outputs, model, encoded, text), ood_method, ood_temperature)
    return Computed(outputs, probabilities, scores, label, maps)


class ClassifierGraph(nn.Module):
    """A trained model with its text features as constants, on the meta device, for :func:`trace`.

    On the meta device, as on a GPU, the image tower encodes all images of a batch at once. On a CPU it may encode them
    one by one, in a number of steps that a graph for any batch size can't hold.

    Parameters
    ----------
    model : AdaptedModel
        The model, which is copied.
    ood_method : str
        See :func:`sotglp.ood.score`.
    ood_temperature : float
        Temperature of that score.
    temperature : float
        Calibrated temperature of the probabilities.
    """

    def __init__(self, model: AdaptedModel, ood_method: OodMethod, ood_temperature: float, temperature: float) -> None:
        super().__init__()
        model = model.for_export()
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
        """Return the outputs that :func:`sotglp.export.onnx_file.export_model` documents."""
        text = TextFeatures(self.global_text, self.local_text)
        computed = compute(self.model, images, text, self.ood_method, self.ood_temperature)
        probabilities = computed.probabilities
        if self.temperature != 1:
            logarithms = self.model.logits(computed.outputs).log_softmax(dim=-1).clamp(min=LOG_TINY)
            probabilities = torch.softmax(logarithms / self.temperature, dim=-1)
        outputs = {PROBABILITIES: probabilities, OOD_SCORE: computed.ood_score, LABEL_INDEX: computed.label_index}
        return outputs if computed.maps is None else outputs | {MAPS: computed.maps}


class _ImageTower(Backbone):
    """The image tower of a backbone, with the logit scale as a number."""

    def __init__(self, backbone: Backbone, memo: dict[int, Any]) -> None:
        nn.Module.__init__(self)
        self.clip = nn.Module()
        visual: Any = copy.deepcopy(backbone.clip.visual, memo)
        self.clip.visual = visual
        self.name, self.pretrained, self.patch_attention = backbone.name, backbone.pretrained, backbone.patch_attention
        self.tower = make_reader(visual, self.patch_attention)
        self._scale, self.has_text = backbone.logit_scale, backbone.has_text

    @property
    def logit_scale(self) -> float:
        return self._scale

    @property
    def device(self) -> torch.device:
        # Mixed precision, which is off, does not support the meta device.
        return torch.device("cpu")

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.tower.encode(images)


def trace(graph: ClassifierGraph, image_size: tuple[int, int]) -> onnx_ir.Model:
    """Return the graph as an ONNX model with its weights, for any number of images of this height and width."""
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
    from onnxscript import optimizer

    example = torch.empty(2, 3, *image_size, device="meta")
    with torch.no_grad():
        program = torch.export.export(
            graph.eval(), (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}}, strict=False
        )
        written = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert written is not None  # it is None only after an export to a file
    initializers = written.model.graph.initializers
    written.apply_weights({name: value for name, value in graph.values.items() if name in initializers})
    model: onnx_ir.Model = optimizer.optimize(
        written.model, input_size_limit=LARGEST_FOLDED, output_size_limit=LARGEST_FOLDED
    )
    # The origin of each node contains paths of this computer.
    ClearMetadataAndDocStringPass()(model)
    RemoveUnusedNodesPass()(model)
    for value, name in zip((*model.graph.inputs, *model.graph.outputs), (INPUT, *OUTPUTS), strict=False):
        value.name = name
        value.shape = onnx_ir.Shape([onnx_ir.SymbolicDim("batch"), *list(value.shape or ())[1:]])
    return model
