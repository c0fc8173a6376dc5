"""Tokenizers of prompts: CLIP's own, and those of Hugging Face (SigLIP, BERT, RoBERTa, XLM-R, NLLB)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from torch import Tensor

from sotglp.errors import SotglpError

TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.txt")
"""Files of which a folder with a tokenizer holds at least one."""


class PromptTokenizer(Protocol):
    """Tokens of a prompt: ``before``, learned contexts, a class name, ``after``, and ``pad`` up to a fixed length."""

    @property
    def before(self) -> tuple[int, ...]:
        """Tokens that every sequence begins with; may be empty."""
        ...

    @property
    def after(self) -> tuple[int, ...]:
        """Tokens that every sequence ends with."""
        ...

    @property
    def pad(self) -> int:
        """Token that fills a sequence up."""
        ...

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Return the tokens of a text without ``before`` and ``after``; ``continues`` if it follows another word."""
        ...

    def token_text(self, token: int) -> str:
        """Return a token as text."""
        ...

    def words(self) -> Tensor:
        """Return the tokens that stand for text, ascending."""
        ...


@cache
def clip_tokenizer() -> SimpleTokenizer:
    """Load CLIP's byte-pair tokenizer, whose vocabulary ships with open_clip."""
    return SimpleTokenizer()


class ClipTokenizer:
    """CLIP's byte-pair tokenizer; see :class:`PromptTokenizer`."""

    pad = 0

    @property
    def before(self) -> tuple[int, ...]:
        """[SOT]."""
        return (clip_tokenizer().sot_token_id,)

    @property
    def after(self) -> tuple[int, ...]:
        """[EOT]."""
        return (clip_tokenizer().eot_token_id,)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Tokenize a text; words have the same tokens wherever they stand."""
        tokens: list[int] = clip_tokenizer().encode(text)
        return tokens

    def token_text(self, token: int) -> str:
        """Decode a token; ``</w>`` marks the end of a word, as in the vocabulary."""
        tokenizer = clip_tokenizer()
        letters: str = tokenizer.decoder[token]
        end = "</w>" if letters.endswith("</w>") else ""
        letters = letters.removesuffix("</w>")
        # The vocabulary encodes each byte as one letter, and a token may be part of a multi-byte character.
        return bytes(tokenizer.byte_decoder[letter] for letter in letters).decode("utf-8", "replace") + end

    def words(self) -> Tensor:
        """Return all tokens but [SOT] and [EOT]."""
        return torch.arange(min(clip_tokenizer().sot_token_id, clip_tokenizer().eot_token_id))


class HuggingFaceTokenizer:
    """A tokenizer of Hugging Face as open_clip wraps it; see :class:`PromptTokenizer`.

    ``n_embeddings`` is the number of token embeddings of the text tower. Raises a SotglpError if the tokenizer puts
    other tokens around a text than the same ones before and after it.
    """

    def __init__(self, wrapped: HFTokenizer, n_embeddings: int) -> None:
        self._wrapped = wrapped
        self._inner: Any = wrapped.tokenizer
        self._n_embeddings = n_embeddings
        self._anchor = self._plain("a")
        whole = list(self._inner("a").input_ids)
        starts = [at for at in range(len(whole)) if whole[at : at + len(self._anchor)] == self._anchor]
        if wrapped.tokenizer_mode or not starts:
            raise SotglpError(
                "the tokenizer changes a text by more than tokens before and after it, which learned prompts don't "
                "support: choose another backbone"
            )
        separator = self._inner.sep_token_id if wrapped.strip_sep_token else None
        around = [0 if token == separator else token for token in whole]
        self.before = tuple(around[: starts[0]])
        self.pad = int(self._inner.pad_token_id or 0)
        # A sequence that ends in nothing else ends in padding.
        self.after = tuple(around[starts[0] + len(self._anchor) :]) or (self.pad,)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Tokenize a text; byte-pair vocabularies have other tokens for a word after a space."""
        tokens = self._plain(text)
        if continues:
            after_anchor = self._plain(f"a {text}")
            if after_anchor[: len(self._anchor)] == self._anchor:
                tokens = after_anchor[len(self._anchor) :]
        if tokens and max(tokens) >= self._n_embeddings:
            raise SotglpError(
                f"the tokenizer {str(self._inner.name_or_path)!r} has token {max(tokens)}, and the text tower has only "
                f"{self._n_embeddings}: it is another model's, so remove it or put the right one in its place"
            )
        return tokens

    def token_text(self, token: int) -> str:
        """Return a token as the vocabulary writes it."""
        return str(self._inner.convert_ids_to_tokens(token))

    def words(self) -> Tensor:
        """Return all tokens but special ones."""
        special = set(self._inner.all_special_ids)
        n_tokens = min(len(self._inner), self._n_embeddings)
        return torch.tensor([token for token in range(n_tokens) if token not in special])

    def _plain(self, text: str) -> list[int]:
        return list(self._inner(self._wrapped.clean_fn(text), add_special_tokens=False).input_ids)


def load_hugging_face(
    name: str, text: Mapping[str, Any], n_embeddings: int, folder: Path | None
) -> HuggingFaceTokenizer:
    """Load the tokenizer of an architecture from a folder, or else from the Hugging Face Hub or its cache.

    Parameters
    ----------
    name : str
        Name of the architecture, for messages.
    text : mapping
        Its ``text_cfg``, which names the tokenizer.
    n_embeddings : int
        Number of token embeddings of the text tower.
    folder : Path or None
        Folder of the weights, whose tokenizer is preferred if there is one.

    Raises
    ------
    SotglpError
        If transformers isn't installed, or the tokenizer isn't found or can't be read.
    """
    repository = str(text.get("hf_tokenizer_name") or text.get("hf_model_name"))
    is_local = folder is not None and any((folder / file).is_file() for file in TOKENIZER_FILES)
    source = str(folder) if is_local else repository
    try:
        wrapped = HFTokenizer(
            source,
            context_length=int(text.get("context_length", DEFAULT_CONTEXT_LENGTH)),
            tokenizer_mode=text.get("tokenizer_mode"),
            trust_remote_code=False,
            **text.get("tokenizer_kwargs", {}),
        )
    except ImportError as error:
        raise SotglpError(
            f"the tokenizer of {name} needs transformers: install it with pip install 'sotglp[huggingface]'"
        ) from error
    except Exception as error:  # transformers and its parts raise many kinds
        if is_local:
            raise SotglpError(f"the tokenizer in {folder} can't be read (--debug shows why): copy it again") from error
        raise SotglpError(
            f"the tokenizer {repository} of {name} isn't in the Hugging Face cache and can't be downloaded: where "
            f"there is a network, run `hf download {repository} --include 'token*' --local-dir FOLDER`, and put its "
            "files beside the weight file that --pretrained names"
        ) from error
    return HuggingFaceTokenizer(wrapped, n_embeddings)
