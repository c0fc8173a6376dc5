"""``sotglp predict``: the class of each image, how sure, and whether it belongs to any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli import options
from sotglp.cli.output import check_result_file, list_unreadable, say, write_csv, write_json

if TYPE_CHECKING:
    from sotglp.images import UnreadableImageError

CSV_HEADER = ("path", "label", "probability", "ood_score")


def predict(
    model_file: options.ModelFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images, or folders of images.")],
    csv_file: Annotated[
        str | None,
        typer.Option("--csv", metavar="FILE", help="Write a CSV table; - for standard output."),
    ] = None,
    ood_method: options.OodMethod = "gl-mcm",
    temperature: options.Temperature = 1.0,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 32,
    skip_unreadable: options.SkipUnreadable = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Name the class of each image, its probability, and a score that is larger the more it is like the classes.

    [bold]Example[/bold]: sotglp predict birds.safetensors garden.jpg more_photos/ --csv result.csv
    """
    from sotglp.arithmetic import choose_device
    from sotglp.dataset import ImageSet
    from sotglp.evaluation import predict as run
    from sotglp.modelfile import load_model

    for target in (json_file, csv_file):
        check_result_file(target)
    reading = options.read_by(batch_size, workers, precision, ood_method, temperature)
    image_set = ImageSet.from_items(
        [image for path in images for image in (ImageSet.from_flat_folder(path).images if path.is_dir() else [path])]
    )
    model, record = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    said = run(model, image_set, reading, unreadable=unreadable)
    list_unreadable(unreadable or [])
    predictions: list[dict[str, Any]] = [
        {
            "path": image_set.name(index),
            "label": record.classes[int(probabilities.argmax())],
            "probability": float(probabilities.max()),
            "ood_score": float(score),
            "probabilities": dict(zip(map(str, record.classes), map(float, probabilities), strict=True)),
        }
        for index, probabilities, score in zip(said.indices, said.probabilities, said.ood_scores, strict=True)
    ]
    if csv_file:
        write_csv(csv_file, CSV_HEADER, [[row[name] for name in CSV_HEADER] for row in predictions])
    if json_file:
        write_json(
            json_file,
            {
                "predictions": predictions,
                "ood_method": ood_method,
                "temperature": temperature,
                "unreadable": [str(error.source) for error in unreadable or []],
            },
        )
    if "-" not in (csv_file, json_file):
        for row in predictions:
            score = f"in-distribution score {row['ood_score']:.4f}"
            say(f"{row['path']}: {row['label']} ({row['probability']:.3f}), {score}")
