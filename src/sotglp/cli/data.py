"""``sotglp data``: list, check and download datasets, and check your own images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from sotglp.backbone_defaults import AUTO, choose_backbone
from sotglp.cli import options
from sotglp.cli.inputs import cache_folder, command_group
from sotglp.console.output import check_outputs, emit, say
from sotglp.console.progress import note_loading
from sotglp.console.table import counted
from sotglp.datasets import ENTRIES, data_root, find
from sotglp.datasets.checking import Finding, check
from sotglp.datasets.entry import Entry
from sotglp.datasets.preparing import check_obtainable, prepare
from sotglp.errors import SotglpError
from sotglp.images.columns import Columns

BROKEN = 1

data = command_group("data", "List, check and download the datasets of published results; check your own images.")


@data.command("list")
def list_data(root: options.DataRoot = None, json_file: options.JsonFile = None) -> None:
    """List all datasets, and whether they are there.

    [bold]Example[/bold]: sotglp data list --root data
    """
    check_outputs({"--json": json_file})
    root = data_root(root)
    lines = []
    for entry in ENTRIES.values():
        state = "there  " if _is_there(entry, root) else "missing"
        size = f"{entry.n_classes or 'no'} classes, {sum(entry.counts.values())} images"
        lines.append(f"{entry.name:16} {entry.role:8} {state}  {size}")
        lines.append(f"    {entry.title}, {entry.source}")
    entries = [_entry(entry) | {"found": _is_there(entry, root)} for entry in ENTRIES.values()]
    emit(lines, {"root": str(root), "datasets": entries}, json_file)


@data.command("check")
def check_data(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[NAME]...", help="Datasets (default: all that are there), or your own images."),
    ] = None,
    root: options.DataRoot = None,
    skip_labels: Annotated[
        bool, Option("--skip-labels", help="Don't look for wrong labels, which needs a backbone.")
    ] = False,
    backbone: Annotated[
        str, Option(help="open_clip architecture that looks for wrong labels; auto as for `sotglp fit`.")
    ] = AUTO,
    pretrained: Annotated[str, Option(help="Its weights, as for `sotglp fit`.")] = "auto",
    split: options.Split = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    page: Annotated[
        Path | None,
        Option("--html", metavar="FILE", help="Write a page with the images in question of your own images."),
    ] = None,
    corrections: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write a CSV table of corrections of a folder, for `sotglp data apply`."),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace an earlier page or table of corrections.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Compare datasets with their published sizes, or look for problems of your own labelled images.

    [bold]Example[/bold]: sotglp data check oxford_pets dtd --root data

    [bold]Example[/bold]: sotglp data check photos --html labels.html --corrections corrections.csv

    A folder of class folders, a folder of splits, or a manifest is searched for images that can't be read, are dark or
    uniform, for copies and near-duplicates, and for labels that are probably wrong, by a classifier that is
    cross-validated on all images. The exit code is 1 if a dataset is missing or broken, an image can't be read, or the
    same image is in two classes.
    """
    check_outputs({"--json": json_file}, {"--html": page, "--corrections": corrections}, force=force)
    root = data_root(root)
    own = [Path(name) for name in names or [] if name not in ENTRIES and _is_path(name)]
    entries = [find(name) for name in names or [] if name in ENTRIES or not _is_path(name)]
    for option, target in (("--html", page), ("--corrections", corrections)):
        if target and not own:
            raise SotglpError(f"{option} is for your own images: give a folder of class folders")
    if corrections and (len(own) > 1 or not os.path.isdir(own[0])):
        raise SotglpError("--corrections is for one folder of class folders, or of splits: give one folder")
    lines = []
    if not names:
        entries = [entry for entry in ENTRIES.values() if _is_there(entry, root)]
        if not entries:
            lines.append(f"there is no dataset in {root}: `sotglp data list` lists the supported ones")
    found: tuple[list[str], dict[str, Any]] = ([], {"image_sets": [], "near_duplicates": []})
    if own:
        chosen = None if skip_labels else choose_backbone(backbone, pretrained)
        note_loading()
        from sotglp.cli.check_images import check_images

        views_dir = None if skip_labels else cache_folder(cache_dir, no_cache)
        columns = Columns(split, path_column, label_column)
        found = check_images(own, columns, chosen, pretrained, device, views_dir, page, corrections, force=force)
    _check(entries, root, lines + found[0], json_file, found[1])


@data.command("apply")
def apply_data(
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="Folder of class folders, or of splits; it isn't changed.")
    ],
    table: Annotated[Path, Argument(metavar="TABLE", help="Table of `sotglp data check FOLDER --corrections TABLE`.")],
    *,
    out: Annotated[Path, Option("--out", help="Folder for the corrected copy, which must not exist.")],
    json_file: options.JsonFile = None,
) -> None:
    """Carry out a table of corrections on a copy of a folder: relabel and remove images.

    [bold]Example[/bold]: sotglp data apply photos corrections.csv --out photos_corrected

    The column action has relabel (to the label in new_label), remove, keep, or nothing.
    """
    check_outputs({"--json": json_file})
    from sotglp.cli.corrections import apply_table

    emit(*apply_table(folder, table, out), json_file)


@data.command("prepare")
def prepare_data(
    names: Annotated[list[str], Argument(metavar="NAME...", help="Datasets to download.")],
    root: options.DataRoot = None,
    json_file: options.JsonFile = None,
) -> None:
    """Download datasets, or explain how to get them; existing ones are kept.

    [bold]Example[/bold]: sotglp data prepare oxford_pets --root data

    Archives are large: see the dataset's page first.
    """
    check_outputs({"--json": json_file})
    root = data_root(root)
    entries = [find(name) for name in names]
    is_json = json_file == "-"
    for entry in entries:
        if not is_json:  # before downloads that may take hours
            say(f"{entry.name}: terms: {entry.terms}; source: {entry.source}")
    for entry in entries:
        check_obtainable(entry, root)
    lines = []
    for entry in entries:
        done = "downloaded to" if prepare(entry, root) else "nothing downloaded, since there is already"
        lines.append(f"{entry.name}: {done} {entry.path(root)}")
    _check(entries, root, lines, json_file)


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or os.path.exists(name)


def _check(
    entries: list[Entry], root: Path, lines: list[str], json_file: str | None, own: Mapping[str, Any] | None = None
) -> None:
    """Check datasets, and emit the findings about them and those about your own images."""
    findings = [check(entry, root) for entry in entries]
    for entry, finding in zip(entries, findings, strict=True):
        lines += _finding_lines(entry, finding, root)
    datasets = [_entry(entry) | asdict(finding) for entry, finding in zip(entries, findings, strict=True)]
    own = own or {"image_sets": []}
    emit(lines, {"root": str(root), "datasets": datasets, **own}, json_file)
    if not (all(finding.complete for finding in findings) and all(result["is_valid"] for result in own["image_sets"])):
        raise typer.Exit(BROKEN)


def _finding_lines(entry: Entry, finding: Finding, root: Path) -> list[str]:
    state = "complete" if finding.complete else "broken" if finding.found else "missing"
    lines = [f"{entry.name}: {state}, {entry.path(root)}"]
    if finding.n_classes is not None:
        lines.append(f"    found: {_size(finding.n_classes, finding.counts)}")
    lines.append(f"    published: {_size(finding.expected_classes, finding.expected_counts)}")
    lines += [f"    problem: {problem}" for problem in finding.problems]
    lines += [f"    warning: {warning}" for warning in finding.warnings]
    if not finding.complete:
        lines.append(f"    expected in {entry.path(root)}: {', '.join(entry.layout)}")
        lines.append(f"    source: {entry.source}")
    lines.append(f"    terms: {entry.terms}")
    return lines


def _size(n_classes: int, counts: Mapping[str, int]) -> str:
    return ", ".join([counted(n_classes, "class", "classes"), *(f"{count} {part}" for part, count in counts.items())])


def _is_there(entry: Entry, root: Path) -> bool:
    return os.path.isdir(entry.path(root))


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "role": entry.role,
        "folder": entry.folder,
        "expected_classes": entry.n_classes,
        "expected_counts": dict(entry.counts),
        "source": entry.source,
        "terms": entry.terms,
        "layout": list(entry.layout),
        "downloadable": entry.download is not None,
    }
