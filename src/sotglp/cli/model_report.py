"""What ``sotglp report`` does of a model file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from sotglp.cli.options import ood_sets_of
from sotglp.console.output import list_unreadable, say, write_json

if TYPE_CHECKING:
    from sotglp.errors import UnreadableImageError
    from sotglp.settings import InferenceConfig


@dataclass(frozen=True)
class Wanted:
    """A report as the command line asks for it."""

    model_file: Path
    test: Path
    ood: tuple[Path, ...]
    out: Path
    pretrained: str | None
    device: str
    skip_unreadable: bool
    force: bool
    json_file: str | None


def report_model(wanted: Wanted, inference: InferenceConfig) -> None:
    """Measure a model and write the page.

    Raises
    ------
    SotglpError
        Before any image is read, if the page can't be written; if model or images can't be used.
    """
    from sotglp.backbone.precision import choose_device
    from sotglp.files.atomic import check_output, write_file
    from sotglp.images.image_set import ImageSet
    from sotglp.model_file.load import load_model
    from sotglp.report.findings import evaluate_for_report
    from sotglp.report.page import About, render

    check_output(wanted.out, force=wanted.force)
    images = ImageSet.from_path(wanted.test)
    ood_sets = ood_sets_of(list(wanted.ood))
    device = choose_device(wanted.device)
    model, record, calibration = load_model(wanted.model_file, pretrained=wanted.pretrained, device=device)
    unreadable: list[UnreadableImageError] | None = [] if wanted.skip_unreadable else None
    findings = evaluate_for_report(model, images, ood_sets, inference, calibration, unreadable=unreadable)
    sources = dict(zip(ood_sets, map(str, wanted.ood), strict=True))
    about = About(
        wanted.model_file.name, record, str(wanted.test), sources, _command(wanted, inference), date.today().isoformat()
    )
    page = render(findings, about)
    write_file(wanted.out, lambda beside: beside.write_bytes(page), force=wanted.force)
    list_unreadable(unreadable or [])
    accuracy = findings.accuracy
    assert accuracy.interval is not None
    low, high = accuracy.interval
    said = f"accuracy {accuracy.value:.3f} ({low:.3f} to {high:.3f}) on {accuracy.n} images"
    areas = "".join(f"; AUROC {one.figures['auroc']:.3f} against {name}" for name, one in findings.ood.items())
    say(f"{wanted.out}: {said}{areas}", json_target=wanted.json_file)
    if wanted.json_file:
        write_json(wanted.json_file, {**findings.to_dict(), "backbone": record.backbone, "out": str(wanted.out)})


def _command(wanted: Wanted, inference: InferenceConfig) -> str:
    """The command again, with the options that change figures."""
    words = ["sotglp", "report", str(wanted.model_file), str(wanted.test)]
    for folder in wanted.ood:
        words += ["--ood", str(folder)]
    words += ["--ood-method", inference.ood_method, "--temperature", f"{inference.temperature:g}"]
    options: Mapping[str, str | None] = {"--pretrained": wanted.pretrained, "--precision": inference.precision}
    for name, value in options.items():
        if value not in (None, "auto"):
            words += [name, str(value)]
    if inference.batch_size != type(inference)().batch_size:
        words += ["--batch-size", str(inference.batch_size)]
    words += ["--skip-unreadable"] if wanted.skip_unreadable else []
    return shlex.join([*words, "--out", str(wanted.out)])
