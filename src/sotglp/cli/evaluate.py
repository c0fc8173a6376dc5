"""``sotglp evaluate``: accuracy, calibration error and detection of unknown classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from sotglp.cli import options
from sotglp.cli.inputs import inference_config, ood_sets_of
from sotglp.console.output import check_outputs, emit, list_unreadable
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.check import warn_of_two_labels
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.model_file.record import read_record
from sotglp.shards.find import find_shards, is_sharded
from sotglp.shards.shard import Shard


def evaluate(
    model_file: options.ModelFile,
    test: options.TestImages,
    ood: options.OodFolders = None,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 32,
    cache_dir: Annotated[
        Path | None,
        Option(metavar="DIR", help="Store encoded images there, in half precision, for later evaluations."),
    ] = None,
    skip_unreadable: options.SkipUnreadable = False,
    split: options.Split = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    json_file: options.JsonFile = None,
) -> None:
    """Evaluate a model on labelled images, and on images of unknown classes.

    [bold]Example[/bold]: sotglp evaluate birds.safetensors photos/test --ood photos/no_birds --json result.json

    TEST may also be tar archives (WebDataset), Parquet tables with images, a data set that `datasets` saved, or an
    address such as s3://bucket/test.
    """
    check_outputs({"--json": json_file})
    inference = inference_config(
        read_record(model_file),
        ood_method,
        temperature,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
    )
    columns, ood_sets = Columns(split, path_column, label_column), ood_sets_of(ood)
    images: ImageSet | list[Shard]
    if is_sharded(test):
        if cache_dir:
            raise SotglpError(f"--cache-dir can't be used with {test}, which is read shard by shard: leave it out")
        images = find_shards([test], columns, with_labels=True)
    else:
        images = ImageSet.from_path(test, columns)
        warn_of_two_labels(images)
    note_loading()
    from sotglp.backbone.precision import choose_device
    from sotglp.model_file.load import load_model
    from sotglp.scoring.evaluation import full_evaluation

    model, record, calibration = load_model(model_file, pretrained=pretrained, device=choose_device(device))
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    result = full_evaluation(
        model, images, ood_sets, inference, calibration=calibration, cache_dir=cache_dir, unreadable=unreadable
    )
    about = {"backbone": record.backbone, "unreadable": list_unreadable(unreadable)}
    emit(result.lines(), {**result, **about}, json_file)
