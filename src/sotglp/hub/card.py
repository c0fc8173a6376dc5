"""The model card: what a model was trained on, how well it does, and where it fails, as README.md of a repository."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from sotglp.console.table import Table, counted
from sotglp.console.text import printable
from sotglp.methods.method import infer_method
from sotglp.model_file.record import KIND_OF_OLD_FILES, ModelRecord
from sotglp.scoring.evaluation import MOST_CLASSES, Evaluation

BACKBONES = "presets/backbone_table.json"
TAGS = (
    "few-shot-learning",
    "clip",
    "prompt-learning",
    "optimal-transport",
    "out-of-distribution-detection",
    "open_clip",
)

SIGNED = "<!-- written by sotglp, sha256 of the text above: {} -->\n"
"""Last line of a card, which shows whether somebody has edited it since."""

_SIGNATURE = re.compile(re.escape(SIGNED).replace(r"\{\}", "([0-9a-f]{64})") + r"\Z")

WIDE_INTERVAL = 0.1
"""Width of an interval of the accuracy from which the card warns of it."""


def model_card(
    record: ModelRecord,
    repo_id: str,
    evaluation: Evaluation | None = None,
    *,
    license: str | None = None,
    description: str | None = None,
) -> str:
    """Return the card of a model.

    Parameters
    ----------
    record : ModelRecord
        Record of the model file.
    repo_id : str
        Repository that the card is for, OWNER/NAME.
    evaluation : Evaluation or None
        Evaluation of the model; None says that there is none.
    license : str or None
        Identifier of the licence, such as ``"mit"``, as the Hub lists them; None leaves it out.
    description : str or None
        Further paragraphs in Markdown, such as the origin of the images and the intended use.
    """
    environment = Environment(
        loader=PackageLoader("sotglp", "hub"), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    title = repo_id.rpartition("/")[2]
    n_classes = counted(len(record.classes), "class", "classes")
    method = infer_method(record.model)
    text = environment.get_template("model_card.md.jinja").render(
        title=title,
        summary=f"A few-shot image classifier with {n_classes} on the frozen backbone {record.backbone['name']}, made "
        "with sotglp.",
        description=description,
        repo_id=repo_id,
        estimator="SOTGLPClassifier" if method.kind == KIND_OF_OLD_FILES else "MethodClassifier",
        classes=[_inline(str(label)) for label in record.classes],
        training=Table(("", ""), list(_training(record))),
        evaluation=evaluation and _tables(evaluation),
        rejection=Table(("", ""), [list(row) for row in record.calibration.described().items()])
        if record.calibration
        else None,
        limits=list(_limits(record, evaluation)),
        versions=", ".join(f"{name} {version}" for name, version in record.versions.items()),
        table=markdown_table,
    )
    data = ModelCardData(
        library_name="sotglp",
        pipeline_tag="image-classification",
        tags=TAGS,
        license=license,
        base_model=_base_model(record),
        model_name=title,
        eval_results=_metrics(evaluation) if evaluation else None,
    )
    card = f"---\n{data.to_yaml()}\n---\n\n{text}"
    return card + SIGNED.format(_digest(card))


def is_unedited(card: str) -> bool:
    """Whether :func:`model_card` wrote a card and nobody has changed it since."""
    # The Hub may store other line ends.
    card = card.replace("\r\n", "\n")
    found = _SIGNATURE.search(card)
    return found is not None and found[1] == _digest(card[: found.start()])


def markdown_table(table: Table) -> str:
    """Return a table in Markdown."""
    sides = [":" if column in table.right else "" for column in range(len(table.rows[0]))]
    header = table.header or [""] * len(sides)
    lines = [header, [f"---{side}" for side in sides], *table.rows]
    return "\n".join("| " + " | ".join(map(_inline, line)) + " |" for line in lines)


def _inline(text: str) -> str:
    """Escape what would end a cell or start markup: names of classes come from folders of strangers."""
    return re.sub(r"([\\`*_\[\]<>|#{}])", r"\\\1", printable(text))


def _training(record: ModelRecord) -> Iterator[list[str]]:
    backbone, training = record.backbone, record.training
    weights = backbone["pretrained"] or "random"
    licence = _weights_licence(backbone["name"], weights)
    yield ["backbone", f"{backbone['name']}, weights {os.path.basename(weights)}{f' ({licence})' if licence else ''}"]
    yield ["input", "{} x {} pixels".format(*backbone["image_size"])]
    method = infer_method(record.model)
    yield ["method", f"{method.title} ({method.source})"]
    if training is not None:
        yield ["images", "all of each class" if training.shots is None else f"up to {training.shots} of each class"]
        yield ["seed", str(training.seed)]
    if record.history:
        last = record.history[-1]
        yield ["epochs", str(len(record.history))]
        yield ["at the end", f"loss {last['loss']:.3f}, training accuracy {last['accuracy']:.1%}"]


def _tables(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "headline": evaluation.headline_table(),
        "classes": evaluation.classes_table(),
        "n_more": max(0, len(evaluation["per_class"]) - MOST_CLASSES),
        "unknown": evaluation.unknown_table() if evaluation["ood"] else None,
        "score": evaluation.score_name,
    }


def _limits(record: ModelRecord, evaluation: Evaluation | None) -> Iterator[str]:
    shots = record.training.shots if record.training else None
    if shots is not None:
        yield (
            f"Trained on at most {counted(shots, 'image')} of each class: photos of another place, camera or season "
            "may be classified worse. Measure on your own photos before you rely on the model."
        )
    answer = "one of them" if record.calibration is None else "one of them or unknown"
    yield f"It knows the classes above and no others: an image that shows two of them still gets {answer}."
    if record.training and record.training.remember:
        yield "The file holds features of the training images, from which something about them can be inferred."
    if record.calibration is None:
        yield "Its probabilities are not calibrated."
    elif record.calibration.n_folds:
        yield "Its threshold was calibrated by cross-fitting on the training images."
    if evaluation is None:
        yield "Its accuracy on images that it was not trained on is not known."
    else:
        interval = evaluation["accuracy_interval"]
        if interval and interval[1] - interval[0] > WIDE_INTERVAL:
            yield (
                f"It was evaluated on {counted(evaluation['n'], 'image')}: the true accuracy may lie anywhere from "
                f"{interval[0]:.0%} to {interval[1]:.0%}."
            )
        worst = evaluation["per_class"][0]
        if worst["accuracy"] < evaluation["accuracy"]:
            yield (
                f"Its worst class is {_inline(worst['class'])}: {worst['correct']} of {counted(worst['n'], 'image')} "
                "correct."
            )
        if not evaluation["ood"]:
            yield "How well it recognises images of none of its classes was not measured."
    yield "It inherits the biases of its backbone. Do not use it to identify or rank people."


def _metrics(evaluation: Evaluation) -> list[EvalResult]:
    dataset = {"task_type": "image-classification", "dataset_type": "images", "dataset_name": "held-out images"}
    found = [("accuracy", evaluation["accuracy"], "Accuracy"), ("ece", evaluation["ece"], "Calibration error")]
    found += [("auroc", numbers["auroc"], f"AUROC against {name}") for name, numbers in evaluation["ood"].items()]
    return [
        EvalResult(metric_type=kind, metric_value=value, metric_name=name, **dataset) for kind, value, name in found
    ]


def _base_model(record: ModelRecord) -> str | None:
    name = record.backbone["name"]
    return name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else None


def _weights_licence(name: str, weights: str) -> str | None:
    """Licence of published weights, None where no source is known."""
    rows = json.loads((resources.files("sotglp") / BACKBONES).read_text(encoding="utf-8"))["backbones"]
    licence = next((row["weights"].get(weights) for row in rows if row["name"] == name), None)
    return None if licence is None else str(licence)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
