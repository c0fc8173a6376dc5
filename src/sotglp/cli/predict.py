"""``sotglp predict``: the class of each image, its probability and an in-distribution score."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from sotglp.cli import options
from sotglp.cli.bulk_options import check_out, refuse_shards
from sotglp.console.output import check_outputs, emit_predictions, label_unknown, list_unreadable, prediction
from sotglp.console.prediction_files import check_parquet
from sotglp.console.progress import note_loading
from sotglp.engines import EngineConfig
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.columns import Columns
from sotglp.images.image_set import ImageSet
from sotglp.images.sources import display_name, find_images
from sotglp.images.survey import with_ranges_of
from sotglp.runtime.model import PortableModel
from sotglp.scoring.prediction_table import PredictionTable

EXPORTED_SUFFIX = ".onnx"


def predict(
    model_file: options.ModelFile,
    images: options.Images,
    csv_file: options.CsvFile = None,
    jsonl_file: Annotated[
        str | None,
        options.Option(
            "--jsonl",
            metavar="FILE",
            help="Write one JSON object a line, as `datasets` reads it; - for standard output.",
        ),
    ] = None,
    parquet_file: Annotated[
        Path | None, options.Option("--parquet", metavar="FILE", help="Write the same columns as Parquet.")
    ] = None,
    out: Annotated[
        Path | None,
        options.Option(
            metavar="DIR",
            help="Write a Parquet file for each shard of the images to this folder; to resume an interrupted run, "
            "repeat the command.",
        ),
    ] = None,
    split: options.Split = None,
    path_column: options.PathColumn = None,
    top: Annotated[int, options.Option(min=1, help="Classes to list for each image, most probable first.")] = 1,
    unknown: Annotated[
        bool | None,
        options.Option(
            "--unknown/--no-unknown",
            help="Label images below the threshold `unknown`, or never; by default if the model is calibrated for the "
            "score.",
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        options.Option(
            help="Also give a set of classes that contains the true one in this fraction of cases, such as 0.9; needs "
            "a calibrated model."
        ),
    ] = None,
    set_score: Annotated[
        str,
        options.Option(help="Measure that sets are cut at: lac, aps or raps (larger sets for harder images)."),
    ] = "lac",
    per_class: Annotated[
        bool,
        options.Option("--per-class", help="Let sets cover that fraction of the images of each class, not of all."),
    ] = False,
    per_cluster: Annotated[
        bool,
        options.Option("--per-cluster", help="Let sets cover that fraction in each cluster of similar classes."),
    ] = False,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 32,
    processes: options.Processes = None,
    engine: options.Engine = "local",
    ray_address: options.RayAddress = None,
    skip_unreadable: options.SkipUnreadable = False,
    json_file: options.JsonFile = None,
) -> None:
    """Predict the class of each image, with its probability and a score that is larger for more familiar images.

    [bold]Example[/bold]: sotglp predict birds.safetensors garden.jpg more_photos/ --csv result.csv

    IMAGES are files, folders, manifests (CSV, Parquet), patterns in quotes, file:// addresses, or - for an image or a
    list of these on standard input. With --out, for any number of images, also tar archives (WebDataset), Parquet
    tables with images, data sets that `datasets` saved, and addresses such as s3://bucket/folder:
    sotglp predict birds.safetensors shards/ --out predictions/ --processes 2

    MODEL is a model file, or an .onnx file of `sotglp export`, which needs neither PyTorch nor a GPU.
    """
    columns = Columns(split, path_column)
    parquet = None if parquet_file is None else str(parquet_file)
    check_outputs({"--csv": csv_file, "--json": json_file, "--jsonl": jsonl_file, "--parquet": parquet})
    if parquet_file is not None:
        check_parquet(parquet_file)
    scoring = {"ood_method": ood_method, "temperature": temperature}
    reading = {"batch_size": batch_size, "workers": workers, "precision": precision}
    sets = {"score": set_score, "per_class": per_class, "per_cluster": per_cluster}
    run_on = EngineConfig(engine, processes, ray_address, use_gpus=device != "cpu")
    if out is not None:
        given = {"--csv": csv_file, "--jsonl": jsonl_file, "--parquet": parquet_file, "--top": top != 1}
        check_out(out, model_file, [option for option, value in given.items() if value])
        note_loading()
        from sotglp.cli.predict_shards import predict_to_folder

        predict_to_folder(
            model_file,
            images,
            columns,
            scoring | reading,
            out,
            pretrained=pretrained,
            device=device,
            unknown=unknown,
            coverage=coverage,
            sets=sets,
            skip_unreadable=skip_unreadable,
            engine=run_on,
            json_file=json_file,
        )
        return
    if not run_on.is_this_process:
        raise SotglpError(f"{'--processes' if engine == 'local' else '--engine'} is for shards: give --out DIR too")
    refuse_shards(images)
    unreadable: list[UnreadableImageError] | None = [] if skip_unreadable else None
    if model_file.suffix == EXPORTED_SUFFIX:
        unsupported = {
            "--coverage": coverage is not None,
            "--set-score": set_score != "lac",
            "--per-class": per_class,
            "--per-cluster": per_cluster,
            "--ood-method": ood_method is not None,
            "--temperature": temperature is not None,
            "--pretrained": pretrained is not None,
            "--device": device not in ("auto", "cpu"),
            "--precision": precision not in ("auto", "fp32"),
            "--workers": workers != 0,
        }
        for option, is_given in unsupported.items():
            if is_given:
                raise SotglpError(
                    f"{option} can't be changed for {model_file}, since an exported model has a fixed score, "
                    "temperature and precision: leave it out, or predict with the model file"
                )
        predictions, about = _predict_exported(
            model_file, find_images(images, columns), unknown, batch_size, unreadable
        )
    elif find_spec("torch") is None:
        raise SotglpError(
            f"{model_file} needs the full installation (pip install sotglp), where `sotglp export` converts it to an "
            f"{EXPORTED_SUFFIX} file"
        )
    else:
        note_loading()
        from sotglp.cli.inputs import images_of
        from sotglp.cli.predict_model import predict_with_model

        predictions, about = predict_with_model(
            model_file,
            images_of(images, columns),
            scoring | reading,
            pretrained=pretrained,
            device=device,
            unknown=unknown,
            coverage=coverage,
            sets=sets,
            unreadable=unreadable,
        )
    for row in predictions:
        row["path"] = display_name(row["path"])
    about["unreadable"] = list_unreadable(unreadable)
    emit_predictions(
        predictions,
        about,
        csv_file,
        json_file,
        PredictionTable(predictions, about).lines(top),
        jsonl_file=jsonl_file,
        parquet_file=parquet_file,
    )


def _predict_exported(
    model_file: Path,
    paths: Sequence[Path],
    unknown: bool | None,
    batch_size: int,
    unreadable: list[UnreadableImageError] | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    model = PortableModel.load(model_file)
    record = model.record
    if unknown and record.threshold is None:
        if record.calibration is None:
            raise SotglpError(
                f"--unknown needs a calibrated model, but {model_file} isn't calibrated: fit it with --calibrate and "
                "export it again"
            )
        raise SotglpError(
            f"the threshold of {model_file} applies to the score {record.calibration.get('ood_method')}, but the file "
            f"computes {record.ood_method}: export it again without --ood-method and --temperature"
        )
    with_ranges_of(ImageSet.from_items(paths), record.value_ranges)  # warns
    found = model.predict(paths, batch_size=batch_size, unreadable=unreadable, show_progress=True)
    rejected = [None] * len(found.indices) if record.threshold is None else model.rejects(found.ood_scores).tolist()
    predictions = [
        prediction(str(paths[index]), model.classes, of_classes, score, is_unknown)
        for index, of_classes, score, is_unknown in zip(
            found.indices, found.probabilities, found.ood_scores, rejected, strict=True
        )
    ]
    if unknown is not False:
        label_unknown(predictions)
    about = {
        "ood_method": record.ood_method,
        "temperature": record.ood_temperature,
        "threshold": record.threshold,
        "calibration": record.calibration,
    }
    return predictions, about
