"""Small tokenizers and text towers of Hugging Face, for tests that skip where transformers isn't installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder

WORDS = ["a", "photo", "of", "cat", "sea", "golden", "oak", "an"]


def write_tokenizer(folder: Path, kind: str = "sentences") -> Path:
    """Write a tokenizer of Hugging Face: "sentences" ends a text in </s>; "bytes" splits words as RoBERTa's does."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind == "sentences":
        vocabulary = {token: index for index, token in enumerate([*special, *WORDS])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        around = {"single": "$A </s>", "pair": "$A </s> $B </s>"}
    else:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: index for index, token in enumerate([*special, *letters])}
        tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        around = {"single": "<s> $A </s>", "pair": "<s> $A </s> $B </s>"}
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        **around, special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


def small_huggingface_clip(kind: str, vocabulary: int = 300) -> Any:
    """A CLIP with a random text encoder of one of open_clip's architectures."""
    import transformers

    sizes: dict[str, Any] = {"vocab_size": vocabulary, "max_position_embeddings": 90, "pad_token_id": 1}
    if kind == "nllb":
        width = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        config: Any = transformers.M2M100Config(**sizes, **width, **heads, encoder_layers=2, decoder_layers=1)
    else:
        width = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
        config = {"roberta": transformers.RobertaConfig, "xlm-roberta": transformers.XLMRobertaConfig}[kind](
            **sizes, **width
        )
    torch.manual_seed(0)
    pooler, projection = ("cls_pooler", "linear") if kind == "nllb" else ("mean_pooler", "mlp")
    text = HFTextEncoder("", 24, config, pooler, projection, pretrained=False)
    if kind == "nllb":
        text.transformer = text.transformer.encoder  # as open_clip keeps it when it reads the configuration itself
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 32}
    clip: Any = open_clip.CustomTextCLIP(
        embed_dim=24, vision_cfg=vision, text_cfg={"width": 32, "heads": 2, "layers": 1}
    )
    clip.text, clip.context_length, clip.vocab_size = text, 77, vocabulary
    return clip.eval()
