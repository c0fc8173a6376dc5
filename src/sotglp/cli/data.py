"""``sotglp data``: which datasets are there, whether they and one's own images are sound, and getting them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli import options
from sotglp.cli.own_images import Report, report_on
from sotglp.console.output import check_result_file, say, write_json

if TYPE_CHECKING:
    from sotglp.datasets.checking import Finding
    from sotglp.datasets.entry import Entry

BROKEN = 1

data = typer.Typer(
    name="data",
    help="List, check and fetch the datasets of published results; check images of your own.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Folder of the datasets; if not given, $SOTGLP_DATA or data."),
]


@data.command("list")
def list_data(root: Root = None, json_file: options.Json = None, debug: options.Debug = False) -> None:
    """List all datasets, and which of them are there.

    [bold]Example[/bold]: sotglp data list --root data
    """
    from sotglp.datasets import ENTRIES, data_root

    check_result_file(json_file)
    root = data_root(root)
    for entry in ENTRIES.values():
        state = "there  " if _is_there(entry, root) else "missing"
        size = f"{entry.n_classes or 'no'} classes, {sum(entry.counts.values())} images"
        say(f"{entry.name:16} {entry.role:8} {state}  {size}", json_target=json_file)
        say(f"    {entry.title}, {entry.source}", json_target=json_file)
    if json_file:
        told = [_told(entry) | {"found": _is_there(entry, root)} for entry in ENTRIES.values()]
        write_json(json_file, {"root": str(root), "datasets": told})


@data.command("check")
def check_data(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Datasets, all that are there if none is named; or your own images."),
    ] = None,
    root: Root = None,
    skip_labels: Annotated[
        bool, typer.Option("--skip-labels", help="Don't look for wrong labels, which takes a backbone.")
    ] = False,
    worst: Annotated[
        float, typer.Option(help="Doubt labels where so large a share of other classes is more probable.")
    ] = 0.5,
    backbone: Annotated[str, typer.Option(help="open_clip architecture that looks for wrong labels.")] = "ViT-B-16",
    pretrained: Annotated[str, typer.Option(help="Its weights, as for `sotglp fit`.")] = "auto",
    device: options.Device = "auto",
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Compare datasets with what was published of them, or look for what is wrong with labelled images of your own.

    [bold]Example[/bold]: sotglp data check oxford_pets dtd --root data

    [bold]Example[/bold]: sotglp data check photos/train

    A folder of class folders or a manifest is searched for images that can't be read, for copies, and for labels that
    may be wrong: the other images speak for many classes more than for theirs. The exit code is 1 if a dataset is
    missing or broken, an image can't be read, or the same image stands in two classes.
    """
    from sotglp.datasets import ENTRIES, data_root, find

    check_result_file(json_file)
    root = data_root(root)
    own = [Path(name) for name in names or [] if name not in ENTRIES and _is_path(name)]
    entries = [find(name) for name in names or [] if name in ENTRIES or not _is_path(name)]
    if not names:
        entries = [entry for entry in ENTRIES.values() if _is_there(entry, root)]
        if not entries:
            say(f"there is no dataset in {root}: `sotglp data list` names those that could be", json_target=json_file)
    judge = None
    if own and not skip_labels:
        from sotglp.backbone import Backbone
        from sotglp.backbone.precision import choose_device

        judge = Backbone.load(backbone, pretrained, device=choose_device(device))
    views_dir = options.cache_folder(cache_dir, no_cache) if judge else None
    _check(entries, root, json_file, [report_on(path, judge, worst, views_dir) for path in own])


@data.command("prepare")
def prepare_data(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Datasets to get.")],
    root: Root = None,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Download datasets where that is possible, or tell how to get them; what is there stays as it is.

    [bold]Example[/bold]: sotglp data prepare oxford_pets --root data

    Archives are large: look at the dataset's page before.
    """
    from sotglp.datasets import data_root, find
    from sotglp.datasets.preparing import check_obtainable, prepare

    check_result_file(json_file)
    root = data_root(root)
    entries = [find(name) for name in names]
    for entry in entries:
        say(f"{entry.name}: terms: {entry.terms}; source: {entry.source}", json_target=json_file)
    for entry in entries:
        check_obtainable(entry, root)
    for entry in entries:
        done = "downloaded to" if prepare(entry, root) else "nothing is fetched, since there is already"
        say(f"{entry.name}: {done} {entry.path(root)}", json_target=json_file)
    _check(entries, root, json_file)


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or Path(name).exists()


def _check(entries: list[Entry], root: Path, json_file: str | None, reports: Sequence[Report] = ()) -> None:
    """Check datasets and tell what was found, of them and of images of the user's own."""
    from sotglp.datasets.checking import check

    for line in (line for report in reports for line in report.lines):
        say(line, json_target=json_file)
    findings = []
    for entry in entries:
        finding = check(entry, root)
        findings.append(finding)
        for line in _lines(entry, finding, root):
            say(line, json_target=json_file)
    if json_file:
        told = [_told(entry) | asdict(finding) for entry, finding in zip(entries, findings, strict=True)]
        image_sets = [report.told for report in reports]
        write_json(json_file, {"root": str(root), "datasets": told, "image_sets": image_sets})
    if not (all(finding.complete for finding in findings) and all(report.is_valid for report in reports)):
        raise typer.Exit(BROKEN)


def _lines(entry: Entry, finding: Finding, root: Path) -> list[str]:
    state = "complete" if finding.complete else "broken" if finding.found else "missing"
    lines = [f"{entry.name}: {state}, {entry.path(root)}"]
    if finding.n_classes is not None:
        lines.append(f"    found: {_size(finding.n_classes, finding.counts)}")
    lines.append(f"    published: {_size(finding.expected_classes, finding.expected_counts)}")
    lines += [f"    problem: {problem}" for problem in finding.problems]
    lines += [f"    warning: {warning}" for warning in finding.warnings]
    if not finding.complete:
        lines.append(f"    wanted in {entry.path(root)}: {', '.join(entry.layout)}")
        lines.append(f"    source: {entry.source}")
    lines.append(f"    terms: {entry.terms}")
    return lines


def _size(n_classes: int, counts: Mapping[str, int]) -> str:
    return ", ".join([f"{n_classes} classes", *(f"{count} {part}" for part, count in counts.items())])


def _is_there(entry: Entry, root: Path) -> bool:
    return entry.path(root).is_dir()


def _told(entry: Entry) -> dict[str, Any]:
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
