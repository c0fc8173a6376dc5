"""An evaluation with all that people and programs read of it: accuracy with its interval, classes, unknown images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sotglp.console.html import parts_html
from sotglp.console.table import Part, Table, counted, part_lines
from sotglp.errors import UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.evaluate import evaluate
from sotglp.scoring.evaluate_shards import evaluate_shards
from sotglp.scoring.intervals import share
from sotglp.settings import InferenceConfig
from sotglp.shards.shard import Shard

MOST_CLASSES = 20
"""Classes that are listed; the mapping has all."""


class Evaluation(dict[str, Any]):
    """Entries of :func:`sotglp.scoring.evaluate.evaluate` by class, and how they were computed.

    Further entries are ``accuracy_interval`` (95 %, None for no images), ``chance``, ``ood_method`` and
    ``temperature``. ``print`` shows tables, and so does a notebook.
    """

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return parts_html("Evaluation", self._parts())

    def lines(self) -> Iterator[str]:
        """Yield the lines of the evaluation for a terminal."""
        return part_lines(self._parts())

    def classes_table(self, most: int = MOST_CLASSES) -> Table:
        """Return the accuracy of at most that many classes, worst first."""
        titles = ["class, worst first", "accuracy", "correct", "most often mistaken for"]
        cells = [
            [
                str(row["class"]),
                f"{row['accuracy']:.1%}",
                f"{row['correct']} of {row['n']}",
                f"{row['mistaken_for']} ({row['n_mistaken_for']})" if row["n_mistaken_for"] else "",
            ]
            for row in self["per_class"][:most]
        ]
        return Table(titles, cells, right=(1, 2))

    def headline_table(self) -> Table:
        """Return the accuracy of the model and of its branches, and the calibration error."""
        return Table((), list(self._headline()))

    def unknown_table(self) -> Table:
        """Return how well the score tells images of each set of other things from those of the classes."""
        sets = self["ood"]
        has_threshold = any("rejected" in numbers for numbers in sets.values())
        titles = ["unknown images", "images", "AUROC", "FPR95", "AUPR in", "AUPR out", "OSCR"]
        cells = [
            [
                name,
                str(numbers["n"]),
                *(f"{numbers[key]:.3f}" for key in ("auroc", "fpr95", "aupr_in", "aupr_out", "oscr")),
                *([f"{numbers['rejected']:.1%}"] if has_threshold else []),
            ]
            for name, numbers in sets.items()
        ]
        return Table([*titles, *(["rejected"] if has_threshold else [])], cells, right=range(1, 8))

    @property
    def score_name(self) -> str:
        """Name of the score, with its temperature unless that is 1."""
        at = "" if self["temperature"] == 1 else f" at temperature {self['temperature']:g}"
        return f"{self['ood_method']}{at}"

    def _parts(self) -> Iterator[Part]:
        yield self.headline_table()
        yield ""
        yield self.classes_table()
        if rest := self["per_class"][MOST_CLASSES:]:
            yield f"{counted(len(rest), 'more class', 'more classes')}, none worse (--json lists all)"
        if self["ood"]:
            yield ""
            yield self.unknown_table()
            yield f"by the score {self.score_name}"

    def _headline(self) -> Iterator[list[str]]:
        interval = self["accuracy_interval"]
        bounds = f"95% interval {interval[0]:.1%} to {interval[1]:.1%}, " if interval else ""
        yield [
            "accuracy",
            f"{self['accuracy']:.1%} ({bounds}chance {self['chance']:.1%}) on {counted(self['n'], 'image')}",
        ]
        if (zero_shot := self["accuracy_zero_shot"]) is not None:
            yield ["zero-shot", f"{zero_shot:.1%}, without training"]
        yield ["global branch", f"{self['accuracy_global']:.1%}"]
        yield ["local branch", f"{self['accuracy_local']:.1%}"]
        calibrated = f", {self['ece_calibrated']:.3f} calibrated" if "ece_calibrated" in self else ""
        yield ["calibration error", f"{self['ece']:.3f}{calibrated}"]
        if "accepted" in self:
            accuracy = self["accuracy_accepted"]
            on_accepted = "" if accuracy is None else f"; accuracy on accepted images {accuracy:.1%}"
            yield ["accepted", f"{self['accepted']:.1%}{on_accepted}"]


def full_evaluation(
    model: AdaptedModel,
    images: ImageSet | Sequence[Shard],
    ood_sets: Mapping[str, ImageSet],
    inference: InferenceConfig,
    *,
    calibration: Calibration | None = None,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
) -> Evaluation:
    """Evaluate a model by class, with intervals; see :func:`sotglp.scoring.evaluate.evaluate`.

    Images in shards are read one shard after another, without ``cache_dir``.
    """
    if isinstance(images, ImageSet):
        result = evaluate(
            model,
            images,
            ood_sets,
            inference,
            calibration=calibration,
            cache_dir=cache_dir,
            unreadable=unreadable,
            by_class=True,
            baseline=True,
        )
    else:
        result = evaluate_shards(model, images, ood_sets, inference, calibration=calibration, unreadable=unreadable)
    correct = sum(row["correct"] for row in result["per_class"])
    return Evaluation(
        result,
        accuracy_interval=share(correct, result["n"]).interval,
        chance=1 / len(model.class_names),
        ood_method=inference.ood_method,
        temperature=inference.temperature,
    )
