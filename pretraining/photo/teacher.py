"""The teacher of the text tower: kernel ridge regression from sentence embeddings to rows of the classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pretraining.photo.wordnet import Anchor

WEIGHTS = {"name": 1.0, "gloss": 0.5, "hypernym": 0.7}
"""Weight of an anchor in the regression."""


class KernelTeacher:
    """Predicts the classifier row of any text.

    Parameters
    ----------
    anchors : sequence of Anchor
        Texts whose rows are known.
    embeddings : Tensor
        Their sentence embeddings, (A, E), normalised.
    rows : Tensor
        Centred rows of the classifier, (1000, F). The row of a text for several classes is the mean of theirs.
    sharpness : float, default 8.0
        The kernel of two embeddings is exp(sharpness (cos - 1)).
    ridge : float, default 0.1
        Regularisation of an anchor of weight 1.
    """

    def __init__(
        self,
        anchors: Sequence[Anchor],
        embeddings: Tensor,
        rows: Tensor,
        *,
        sharpness: float = 8.0,
        ridge: float = 0.1,
    ) -> None:
        self.sharpness = sharpness
        self._anchors = embeddings
        self.rows = normalize(rows, dim=-1)
        self.targets = torch.stack([normalize(self.rows[list(one.classes)].mean(0), dim=-1) for one in anchors])
        weights = torch.tensor([WEIGHTS[one.kind] for one in anchors])
        gram = self._kernel(embeddings) + ridge * torch.diag(1 / weights)
        self._coefficients = torch.linalg.solve(gram, self.targets)

    def predict(self, embeddings: Tensor) -> Tensor:
        """Return rows (n, F), normalised, for sentence embeddings (n, E)."""
        parts = [normalize(self._kernel(part) @ self._coefficients, dim=-1) for part in embeddings.split(4096)]
        return torch.cat(parts)

    def _kernel(self, embeddings: Tensor) -> Tensor:
        return torch.exp(self.sharpness * (embeddings @ self._anchors.T - 1))


def sentence_encoder(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    """Return a function that encodes texts into normalised embeddings (n, 384): MiniLM with mean pooling."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> Tensor:
        embeddings = torch.zeros(len(texts), model.config.hidden_size)
        # Texts of similar length share a batch, which saves padding.
        for part in torch.tensor([len(text) for text in texts]).argsort(stable=True).split(128):
            batch = tokenizer(
                [texts[i] for i in part.tolist()], padding=True, truncation=True, max_length=48, return_tensors="pt"
            )
            mask = batch["attention_mask"][..., None]
            hidden = model(**batch).last_hidden_state
            embeddings[part] = normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return embeddings

    return encode
