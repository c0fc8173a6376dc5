"""Count the pretrained pairs of open_clip whose towers are supported, on the meta device: no weights, no memory.

For each architecture, both towers are built, and one image and one prompt go through them; their shapes must be those
of the joint space. Text towers of Hugging Face need transformers, which has no attention masks on the meta device: they
are only built, with the sizes of their published configurations, and tests run small ones.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections import Counter, defaultdict
from typing import Any

import open_clip
import torch

from sotglp.backbone.readers import make_reader
from sotglp.backbone.text import Segment
from sotglp.backbone.text_huggingface import HuggingFaceTextTower
from sotglp.backbone.text_readers import make_text_reader
from sotglp.backbone.tokenizers import ClipTokenizer


def published_config(name: str) -> Any:
    """Sizes of a text encoder as its repository gives them."""
    import transformers

    if "nllb" in name:
        layers, inner = (12, 4096) if "600M" in name else (24, 8192)
        return transformers.M2M100Config(
            vocab_size=256206, d_model=1024, encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=inner
        )
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    sizes: dict[str, Any] = {"max_position_embeddings": 514, "pad_token_id": 1, **(large if "large" in name else {})}
    if name.startswith("xlm"):
        return transformers.XLMRobertaConfig(vocab_size=250002, **sizes)
    return transformers.RobertaConfig(vocab_size=50265, **sizes)


def kinds(name: str) -> tuple[str, str]:
    """Build an architecture, check the shapes of its features, and return the titles of its towers' kinds."""
    config = open_clip.get_model_config(name)
    text = config["text_cfg"]
    with torch.device("meta"), torch.no_grad():
        clip: Any = open_clip.create_model(name, device="meta", pretrained_text=False).eval()
        reader = make_reader(clip.visual, "value")
        size = clip.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        features, patches = reader.encode(torch.empty(1, 3, height, width))
        rows, columns = reader.patch_grid
        assert features.shape == (1, reader.embed_dim), features.shape
        assert patches.shape == (1, rows * columns, reader.patch_width), patches.shape
        assert reader.project(patches).shape == (1, rows * columns, config["embed_dim"])
        has_tokenizer = bool(text.get("hf_tokenizer_name") or text.get("hf_model_name"))
        text_reader = make_text_reader(clip, ClipTokenizer if has_tokenizer else None)
        if not isinstance(text_reader, HuggingFaceTextTower):
            (found,) = text_reader.encode([Segment(torch.empty(1, 9, text_reader.width))])
            assert found.shape == (1, config["embed_dim"]), found.shape
    return type(reader).__name__, type(text_reader).__name__


def main() -> None:
    """Print the counts, and what is not supported and why."""
    logging.disable()
    warnings.simplefilter("ignore")
    if hasattr(open_clip.hf_model, "AutoConfig"):
        open_clip.hf_model.AutoConfig.from_pretrained = published_config
    tags = defaultdict(list)
    for name, tag in open_clip.list_pretrained():
        tags[name].append(tag)
    counts: Counter[tuple[str, str]] = Counter()
    failed: dict[str, str] = {}
    for name in tags:
        try:
            counts[kinds(name)] += len(tags[name])
        except Exception as error:  # any failure counts as not supported
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
        print(name, failed.get(name, "supported"), file=sys.stderr, flush=True)
    rest = {f"{name} ({len(tags[name])})": reason for name, reason in failed.items()}
    pairs = {" + ".join(kind): count for kind, count in counts.most_common()}
    print(
        json.dumps(
            {"pairs": sum(map(len, tags.values())), "supported": counts.total(), "by kind": pairs, "rest": rest},
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
