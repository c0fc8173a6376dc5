"""Text towers of Hugging Face in open_clip models: RoBERTa, XLM-R, NLLB and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH
from torch import Tensor, nn

from sotglp.backbone.text import LoadTokenizer, Segment, whole_sequences
from sotglp.backbone.tokenizers import PromptTokenizer
from sotglp.errors import UnsupportedTowerError


class HuggingFaceTextTower:
    """Encodes whole sequences of soft embeddings without padding, which the tower's attention mask hides anyway."""

    title: ClassVar[str] = "a Hugging Face encoder"

    padded_length: ClassVar[int | None] = None
    """Sequences are encoded as long as they are."""

    def __init__(self, clip: nn.Module, load_tokenizer: LoadTokenizer | None = None) -> None:
        self._text = cast(Any, clip).text
        if load_tokenizer is None:
            raise UnsupportedTowerError(
                f"text tower {type(self._text.transformer).__name__}", "its tokenizer is not given (tokenizer=)"
            )
        self._load_tokenizer = load_tokenizer

    @staticmethod
    def reads(text: nn.Module) -> bool:
        """Return whether a text tower is of this kind."""
        return isinstance(text, HFTextEncoder)

    @staticmethod
    def is_configured(text: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a supported text tower of this kind from a ``text_cfg``."""
        return bool(text.get("hf_model_name"))

    @cached_property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer of its vocabulary."""
        return self._load_tokenizer()

    @property
    def context_length(self) -> int:
        """Largest number of tokens in a sequence, including those before and after a text; open_clip uses 77."""
        longest = int(self._text.context_length or DEFAULT_CONTEXT_LENGTH)
        return min(longest, int(DEFAULT_CONTEXT_LENGTH))

    @property
    def width(self) -> int:
        """Width of a token embedding, d_text."""
        return int(self._embedding.weight.shape[1])

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the residual stream of one token in all blocks."""
        config = self._text.config
        n_layers = int(getattr(config, "encoder_layers", 0) or getattr(config, "num_hidden_layers", 12))
        return n_layers * self.width * int(self._embedding.weight.itemsize)

    @property
    def _embedding(self) -> Any:
        return self._text.transformer.get_input_embeddings()

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up the embeddings of token numbers (...), without positions: (..., d_text)."""
        embeddings: Tensor = self._embedding(tokens)
        return embeddings

    def encode(self, segments: Sequence[Segment]) -> list[Tensor]:
        """Encode sequences as :meth:`sotglp.backbone.text.TextTower.encode` does, each as a whole."""
        return [self._encode(sequences) for sequences in whole_sequences(segments)]

    def _encode(self, sequences: Tensor) -> Tensor:
        text = self._text
        mask = torch.ones(sequences.shape[:2], dtype=torch.long, device=sequences.device)
        found = text.transformer(inputs_embeds=sequences.to(self._embedding.weight.dtype), attention_mask=mask)
        features: Tensor = text.proj(text.pooler(found, mask))
        return features
