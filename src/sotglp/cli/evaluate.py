"""``sotglp evaluate``: accuracy of a model, and how well it knows what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli import options
from sotglp.console.output import check_result_file, list_unreadable, say, write_json

if TYPE_CHECKING:
    from sotglp.errors import UnreadableImageError


def evaluate(
    model_file: options.ModelFile,
    test: Annotated[Path, typer.Argument(metavar="TEST", help="Folder of class folders, or manifest.")],
    ood: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of images of none of the classes (repeat for more)."),
    ] = None,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 32,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep encoded images there, in half precision, for other evaluations."),
    ] = None,
    skip_unreadable: options.SkipUnreadable = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Measure a model on labelled images, and on others that it should not know.

    [bold]Example[/bold]: sotglp evaluate birds.safetensors photos/test --ood photos/no_birds --json result.json
    """
    from sotglp.backbone.precision import choose_device
    from sotglp.images.image_set import ImageSet
    from sotglp.model_file.load import load_model
    from sotglp.model_file.record import read_record
    from sotglp.scoring.evaluate import evaluate as measure

    check_result_file(json_file)
    told = read_record(model_file).calibration
    inference = options.inference_config(batch_size, workers, precision, ood_method, temperature, told)
    images = ImageSet.from_path(test)
    ood_sets = options.ood_sets_of(ood or [])
    model, record, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    result = measure(
        model, images, ood_sets, inference, calibration=calibration, cache_dir=cache_dir, unreadable=unreadable
    )
    list_unreadable(unreadable or [])
    for line in _lines(result):
        say(line, json_target=json_file)
    if json_file:
        about = {
            "backbone": record.backbone,
            "ood_method": inference.ood_method,
            "temperature": inference.temperature,
            "unreadable": [str(error.source) for error in unreadable or []],
        }
        write_json(json_file, result | about)


def _lines(result: dict[str, Any]) -> list[str]:
    branches = f"global {result['accuracy_global']:.3f}, local {result['accuracy_local']:.3f}"
    lines = [f"accuracy {result['accuracy']:.3f} ({branches}) on {result['n']} images"]
    ece = f"expected calibration error {result['ece']:.3f}"
    lines.append(f"{ece}, {result['ece_calibrated']:.3f} calibrated" if "ece_calibrated" in result else ece)
    if "accepted" in result:
        of_them = result["accuracy_accepted"]
        right = "" if of_them is None else f", of them right {of_them:.1%}"
        lines.append(f"accepted {result['accepted']:.1%} of these images{right}")
    for name, numbers in result["ood"].items():
        rejected = f", rejected {numbers['rejected']:.1%}" if "rejected" in numbers else ""
        lines.append(
            f"{name}: AUROC {numbers['auroc']:.3f}, FPR95 {numbers['fpr95']:.3f}, AUPR in {numbers['aupr_in']:.3f}, "
            f"out {numbers['aupr_out']:.3f}, OSCR {numbers['oscr']:.3f}{rejected} on {numbers['n']} images"
        )
    return lines
