"""The interface of text towers, and the kinds of tower that are supported.

To support another kind, add a file with a class of this interface and a row in ``TEXT_READERS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from sotglp.backbone.text import LoadTokenizer, Segment, TextTower
from sotglp.backbone.text_huggingface import HuggingFaceTextTower
from sotglp.backbone.text_padded import PaddedTextTower
from sotglp.backbone.tokenizers import PromptTokenizer
from sotglp.errors import UnsupportedTowerError


class TextReader(Protocol):
    """Encodes embeddings of prompts into text features; see :class:`sotglp.backbone.text.TextTower`.

    ``title`` names the kind of tower in messages. ``padded_length`` is the number of tokens that every sequence is
    filled up to, None if it is encoded as long as it is. ``context_length`` is the largest number of tokens in a
    sequence, ``width`` that of a token embedding, d_text, and ``bytes_per_token`` the size of one token's residual
    stream in all blocks.
    """

    title: ClassVar[str]

    def __init__(self, clip: nn.Module, load_tokenizer: LoadTokenizer | None = None) -> None: ...

    @staticmethod
    def reads(text: nn.Module) -> bool:
        """Return whether a text tower is of this kind."""
        ...

    @staticmethod
    def is_configured(text: Mapping[str, Any]) -> bool:
        """Return whether open_clip builds a supported text tower of this kind from a ``text_cfg``."""
        ...

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer of its vocabulary."""
        ...

    @property
    def padded_length(self) -> int | None:
        """See the class."""
        ...

    @property
    def context_length(self) -> int:
        """See the class."""
        ...

    @property
    def width(self) -> int:
        """See the class."""
        ...

    @property
    def bytes_per_token(self) -> int:
        """See the class."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up the embeddings of token numbers (...), without positions: (..., d_text)."""
        ...

    def encode(self, segments: Sequence[Segment]) -> list[Tensor]:
        """Encode sequences with shared prefixes into features of those that no other continues, (S, d) each."""
        ...


TEXT_READERS: tuple[type[TextReader], ...] = (TextTower, PaddedTextTower, HuggingFaceTextTower)


def make_text_reader(clip: nn.Module, load_tokenizer: LoadTokenizer | None = None) -> TextReader:
    """Return the reader of the text tower of an open_clip model; raise an UnsupportedTowerError if there is none."""
    text = getattr(clip, "text", clip)
    for reader in TEXT_READERS:
        if reader.reads(text):
            return reader(clip, load_tokenizer)
    *titles, last_title = (reader.title for reader in TEXT_READERS)
    raise UnsupportedTowerError(
        f"text tower {type(text).__name__}", f"learned prompts need {', '.join(titles)} or {last_title}"
    )
