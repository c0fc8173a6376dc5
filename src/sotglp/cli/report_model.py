"""The page about a model for ``sotglp report``."""

from __future__ import annotations

import shlex
from datetime import date
from pathlib import Path

from sotglp.backbone.precision import choose_device
from sotglp.cli.inputs import ood_sets_of
from sotglp.console.output import emit, list_unreadable
from sotglp.console.table import counted
from sotglp.errors import UnreadableImageError
from sotglp.files.atomic import write_file
from sotglp.images.check import warn_of_two_labels
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.model_file.load import load_model
from sotglp.report.findings import evaluate_for_report
from sotglp.report.page import About, render
from sotglp.settings import InferenceConfig


def report_model(
    model_file: Path,
    test: Path,
    columns: Columns,
    ood: list[Path],
    out: Path,
    inference: InferenceConfig,
    pretrained: str | None,
    device: str,
    skip_unreadable: bool,
    force: bool,
    json_file: str | None,
) -> None:
    """Evaluate the model and write the page."""
    images, ood_sets = ImageSet.from_path(test, columns), ood_sets_of(ood)
    warn_of_two_labels(images)
    model, record, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    findings = evaluate_for_report(model, images, ood_sets, inference, calibration, unreadable=unreadable)
    words = ["sotglp", "report", str(model_file), str(test), *(word for one in ood for word in ("--ood", str(one)))]
    chosen = {"--split": columns.split, "--path-column": columns.path, "--label-column": columns.label}
    words += [word for name, value in chosen.items() if value is not None for word in (name, value)]
    words += [*_options(inference, pretrained), *(["--skip-unreadable"] if skip_unreadable else []), "--out", str(out)]
    sources = dict(zip(ood_sets, map(str, ood), strict=True))
    about = About(model_file.name, record, str(test), sources, shlex.join(words), date.today().isoformat())
    page = render(findings, about)
    write_file(out, lambda beside: beside.write_bytes(page), force=force)
    list_unreadable(unreadable)
    accuracy = findings.accuracy
    assert accuracy.interval is not None
    low, high = accuracy.interval
    line = f"{out}: accuracy {accuracy.value:.1%} (95% interval {low:.1%} to {high:.1%})"
    line += f" on {counted(accuracy.n, 'image')}"
    line += "".join(f"; AUROC {one.figures['auroc']:.3f} against {name}" for name, one in findings.ood.items())
    emit([line], {**findings.to_dict(), "backbone": record.backbone, "out": str(out)}, json_file)


def _options(inference: InferenceConfig, pretrained: str | None) -> list[str]:
    """Return the options that change the figures of the page."""
    words = ["--ood-method", inference.ood_method, "--temperature", f"{inference.temperature:g}"]
    if pretrained is not None:
        words += ["--pretrained", pretrained]
    if inference.precision != "auto":
        words += ["--precision", inference.precision]
    if inference.batch_size != InferenceConfig().batch_size:
        words += ["--batch-size", str(inference.batch_size)]
    return words
