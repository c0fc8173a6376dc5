"""The page about a model for ``sotglp report``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sotglp.backbone.precision import choose_device
from sotglp.cli.inputs import ood_sets_of
from sotglp.console.output import emit, list_unreadable
from sotglp.errors import UnreadableImageError
from sotglp.files.atomic import write_file
from sotglp.images.image_set import ImageSet
from sotglp.model_file.load import load_model
from sotglp.report.findings import evaluate_for_report
from sotglp.report.page import About, render
from sotglp.settings import InferenceConfig


@dataclass(frozen=True)
class ModelReport:
    """A report with the options of the command."""

    model_file: Path
    test: Path
    ood: tuple[Path, ...]
    out: Path
    pretrained: str | None
    device: str
    skip_unreadable: bool
    force: bool
    json_file: str | None
    inference: InferenceConfig

    def write(self) -> None:
        """Evaluate the model and write the page.

        Raises
        ------
        SotglpError
            If the model or images can't be used, or the page can't be written.
        """
        images, ood_sets = ImageSet.from_path(self.test), ood_sets_of(list(self.ood))
        model, record, calibration = load_model(
            self.model_file, pretrained=self.pretrained, device=choose_device(self.device)
        )
        unreadable: list[UnreadableImageError] | None = [] if self.skip_unreadable else None
        findings = evaluate_for_report(model, images, ood_sets, self.inference, calibration, unreadable=unreadable)
        sources = dict(zip(ood_sets, map(str, self.ood), strict=True))
        today = date.today().isoformat()
        page = render(findings, About(self.model_file.name, record, str(self.test), sources, self._command(), today))
        write_file(self.out, lambda beside: beside.write_bytes(page), force=self.force)
        list_unreadable(unreadable or [])
        accuracy = findings.accuracy
        assert accuracy.interval is not None
        low, high = accuracy.interval
        line = f"{self.out}: accuracy {accuracy.value:.3f} ({low:.3f} to {high:.3f}) on {accuracy.n} images"
        line += "".join(f"; AUROC {one.figures['auroc']:.3f} against {name}" for name, one in findings.ood.items())
        emit([line], {**findings.to_dict(), "backbone": record.backbone, "out": str(self.out)}, self.json_file)

    def _command(self) -> str:
        """Return the command with the options that change its figures."""
        inference = self.inference
        words = ["sotglp", "report", str(self.model_file), str(self.test)]
        for folder in self.ood:
            words += ["--ood", str(folder)]
        words += ["--ood-method", inference.ood_method, "--temperature", f"{inference.temperature:g}"]
        if self.pretrained is not None:
            words += ["--pretrained", self.pretrained]
        if inference.precision != "auto":
            words += ["--precision", inference.precision]
        if inference.batch_size != InferenceConfig().batch_size:
            words += ["--batch-size", str(inference.batch_size)]
        words += ["--skip-unreadable"] if self.skip_unreadable else []
        return shlex.join([*words, "--out", str(self.out)])
