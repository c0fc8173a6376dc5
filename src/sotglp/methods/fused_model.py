"""A closed-form residual beside the two branches of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError
from sotglp.features.rows import EncodedImages
from sotglp.methods.base import Outputs, full_precision
from sotglp.methods.prompt_model import PromptModel
from sotglp.methods.residual import ClosedFormResidual, build_residual
from sotglp.methods.text_features import TextFeatures

RESIDUAL = "residual."
"""Beginning of the names of a residual's tensors."""


class FusedModel(PromptModel):
    """Prompts, and a classifier fitted on the image features of the shots whose scores are added to the logits.

    Parameters are those of :class:`PromptModel`; the settings are a :class:`sotglp.settings.ModelConfig`.

    Attributes
    ----------
    residual : ClosedFormResidual or None
        Scores of the residual, of unit image features; None before it is fitted, and for a model without one.
    """

    def __init__(self, backbone: Backbone, class_names: Sequence[str], seed: int = 1, **settings: object) -> None:
        super().__init__(backbone, class_names, seed, **settings)
        self.residual: ClosedFormResidual | None = None

    def new_residual(self) -> ClosedFormResidual:
        """Build an unfitted residual of the kind in the settings."""
        residual = build_residual(self.config.residual, len(self.class_names), self.backbone.embed_dim)
        return residual.to(self.backbone.device)

    @property
    def fusion(self) -> tuple[float, float, float]:
        """Factors of global cosines, local cosines and residual."""
        chosen: tuple[float, float, float] | None = self.config.fusion
        return chosen or (*super().branch_factors, 0.0)

    @property
    def branch_factors(self) -> tuple[float, float]:
        """Factors of global and local cosines in the logits."""
        return self.fusion[:2]

    def compare(
        self, encoded: EncodedImages, text: TextFeatures, *, drawn_prompts: Tensor | None = None, for_loss: bool = False
    ) -> Outputs:
        """Compare as :meth:`PromptModel.compare` does, and add the scores of the residual unless for the loss."""
        outputs = super().compare(encoded, text, drawn_prompts=drawn_prompts, for_loss=for_loss)
        if self.residual is None or for_loss:
            return outputs
        unit_features = F.normalize(full_precision(encoded.image_features), dim=-1)
        return outputs._replace(residual=self.residual(unit_features))

    def logits(self, outputs: Outputs) -> Tensor:
        """Compute s (a global + b local) + c residual, with the factors a, b and c of :attr:`fusion`, (B, C)."""
        logits = super().logits(outputs)
        return logits if outputs.residual is None else logits + self.fusion[2] * outputs.residual

    def kept_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that model files store, those of the residual among them, by name."""
        of_residual = {} if self.residual is None else dict(self.residual.named_buffers(prefix="residual"))
        return super().kept_tensors() | of_residual

    def moved_tensors(self, origins: Sequence[int | None]) -> dict[str, Tensor]:
        """Return the kept tensors for classes of these origins; see :meth:`AdaptedModel.moved_tensors`.

        Raise a SotglpError for a new class if there is a residual, which is fitted on all classes at once.
        """
        moved = super().moved_tensors(origins)
        if self.residual is None:
            return moved
        old = [index for index in origins if index is not None]
        if len(old) < len(origins):
            raise SotglpError(
                "the residual of the model is fitted on the images of all classes at once: give those of all old "
                "classes (--others, others=), or fit the model again with the new class included"
            )
        return moved | dict(self.residual.of_classes(old).named_buffers(prefix="residual"))

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a model file; see :meth:`AdaptedModel.restore`."""
        super().restore(tensors)
        of_residual = {
            name.removeprefix(RESIDUAL): tensor for name, tensor in tensors.items() if name.startswith(RESIDUAL)
        }
        if of_residual and self.config.residual is not None:
            self.residual = self.new_residual()
            self.residual.restore(of_residual)

    def _shared_settings(self) -> dict[str, Any]:
        return super()._shared_settings() | {"residual": None, "fusion": None}
