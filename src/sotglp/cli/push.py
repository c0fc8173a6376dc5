"""``sotglp push``: a model and its card on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from sotglp.cli import options
from sotglp.cli.inputs import inference_config, ood_sets_of
from sotglp.console.output import check_outputs, emit
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError
from sotglp.images.image_set import ImageSet
from sotglp.model_file.record import read_record


def push(
    model_file: options.ModelFile,
    repo_id: Annotated[str, Argument(metavar="OWNER/NAME", help="Repository; it is created if it is missing.")],
    test: Annotated[
        Path | None, Option(metavar="DIR", help="Labelled images: their accuracy is written on the model card.")
    ] = None,
    ood: options.OodFolders = None,
    license: Annotated[str | None, Option(help="Licence of the model, such as mit or cc-by-4.0.")] = None,
    about: Annotated[
        Path | None,
        Option(metavar="FILE", help="Markdown for the card, such as the origin of the images and the intended use."),
    ] = None,
    private: Annotated[bool, Option("--private", help="Create a private repository.")] = False,
    branch: Annotated[str | None, Option(help="Branch to write to; default main.")] = None,
    create_pr: Annotated[bool, Option("--create-pr", help="Open a pull request instead.")] = False,
    message: Annotated[str, Option(help="Message of the commit.")] = "Push a model of sotglp",
    device: options.Device = "auto",
    force: Annotated[bool, Option("--force", help="Replace a card that somebody wrote or edited.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Upload a model with a model card to the Hugging Face Hub; log in with `hf auth login` first.

    [bold]Example[/bold]: sotglp push birds.safetensors me/birds --test photos/test --license mit

    In Python, SOTGLPClassifier.from_pretrained("me/birds") loads it.
    """
    if ood and not test:
        raise SotglpError("--ood is for the evaluation on the card: give --test too")
    check_outputs({"--json": json_file})
    record = read_record(model_file)
    description = None if about is None else _text(about)
    images = ImageSet.from_path(test) if test else None
    ood_sets = ood_sets_of(ood)
    note_loading()
    from sotglp.backbone.precision import choose_device
    from sotglp.hub.repository import MODEL, described
    from sotglp.hub.repository import push as push_files
    from sotglp.model_file.load import carries_backbone, load_model
    from sotglp.scoring.evaluation import full_evaluation

    evaluation = None
    if images is not None:
        model, record, calibration = load_model(model_file, device=choose_device(device))
        inference = inference_config(record, None, None)
        evaluation = full_evaluation(model, images, ood_sets, inference, calibration=calibration)
    has_backbone = carries_backbone(model_file)
    texts = described(record, repo_id, evaluation, license=license, description=description, has_backbone=has_backbone)
    url = push_files(
        {MODEL: model_file, **texts},
        repo_id,
        commit_message=message,
        private=private or None,
        branch=branch,
        create_pr=create_pr,
        force=force,
    )
    emit([f"{model_file} is at {url}"], {"url": url, "evaluation": evaluation}, json_file)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SotglpError(f"{path} can't be read as text in UTF-8: give a Markdown file with --about") from error
