"""``sotglp demo``: methods compared offline, on photographs or on painted shapes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from sotglp.cli import options
from sotglp.console.output import check_outputs, emit, write_json
from sotglp.console.progress import note_loading


def demo(
    out: Annotated[Path, Option(help="Folder for photos, model, figure and report.")] = Path("demo"),
    painted: Annotated[bool, Option("--painted", help="Use painted shapes, whose true parts are known.")] = False,
    seed: Annotated[int, Option(min=0, max=2**63 - 1, help="Seed of training, and of painted images.")] = 1,
    force: Annotated[bool, Option("--force", help="Replace the files of an earlier demo in OUT.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Compare methods on photographs that ship with the package, without any download.

    [bold]Example[/bold]: sotglp demo --out demo

    The task has 8 kinds of groceries with 16 training photos each, and photos of other things as unknowns. OUT then
    holds the photos, a model, report.html, and prompts.png, which shows the patches that each local prompt used. With
    --painted, the task has 20 classes of coloured shapes, and plan.png compares the patches with the true parts.
    """
    note_loading()
    from sotglp.demo import painted as of_shapes
    from sotglp.demo import photographs
    from sotglp.demo.folder import RESULT, check_folder

    check_outputs({"--json": json_file})  # before a folder is made
    names = of_shapes.FILES if painted else photographs.FILES
    check_folder(out, names, force=force)
    target = json_file or str(out / RESULT)
    check_outputs({"--json": target}, {name: out / name for name in names}, force=force)
    run = of_shapes.run_painted if painted else photographs.run_photographs
    result = run(out, seed=seed, force=force)
    if not json_file:
        write_json(target, result)
    lines = painted_lines(out, result) if painted else photo_lines(out, result)
    emit(lines, result, json_file)


def photo_lines(out: Path, result: dict[str, Any]) -> list[str]:
    """Return the table of methods on photographs, and commands to try next."""
    from sotglp.demo import photographs
    from sotglp.demo.folder import MODEL, PHOTOS
    from sotglp.demo.photo_set import TEST, TRAIN, UNKNOWN

    methods: dict[str, dict[str, Any]] = result["methods"]
    n_classes, n_test = len(result["classes"]), next(iter(methods.values()))["n"]
    n_unknown = next(iter(methods.values()))["ood"][UNKNOWN]["n"]
    lines = [f"{'':26}accuracy [95 %]         AUROC   FPR95   score           fit"]
    for name, one in methods.items():
        low, high = one["interval"]
        unknown = one["ood"][UNKNOWN]
        lines.append(
            f"{name:24}  {one['accuracy']:.3f} [{low:.3f}, {high:.3f}]    {unknown['auroc']:.3f}   "
            f"{unknown['fpr95']:.3f}   {one['ood_method']:12} {one['seconds']:5.1f} s"
        )
    photos = out / PHOTOS
    model, train, unknown = (_quoted(path) for path in (out / MODEL, photos / TRAIN, photos / UNKNOWN))
    shown = photos / TEST / photographs.SHOWN[0]
    return [
        *lines,
        "",
        f"accuracy: {n_test} test photos of {n_classes} classes (chance {1 / n_classes:.3f}), Wilson interval; "
        f"{result['shots']} training photos of each class",
        f"AUROC, FPR95: {n_unknown} photos of other things against the test photos, by the named score",
        "fit: seconds, without those in which the training photos are encoded for all methods "
        f"({result['encoding_seconds']:.0f} s)",
        "",
        f"{out / photographs.REPORT} describes the last model, and {out / photographs.PICTURE} shows the patches that "
        f"its prompts used ({result['seconds']:.0f} s in all). Try next:",
        f"  sotglp predict {model} {unknown}",
        f"  sotglp explain {model} {_quoted(shown)} --top 2 --out {_quoted(out / 'explained.png')}",
        f"  sotglp fit {train} --out mine.safetensors --backbone {result['backbone']} --calibrate",
    ]


def painted_lines(out: Path, result: dict[str, Any]) -> list[str]:
    """Return the table of methods on painted shapes, and commands to try next."""
    from sotglp.demo import painted
    from sotglp.demo.folder import MODEL, PHOTOS

    photos = out / PHOTOS
    model = _quoted(out / MODEL)
    train, test, near, far = (_quoted(photos / name) for name in ("train", "test", "near", "far"))
    rate = painted.SETTINGS.learning_rate
    return [
        *painted_table(result["methods"]),
        "",
        f"{out / painted.PICTURE} shows the patches that each prompt used ({result['seconds']:.0f} s in all). "
        "Try next:",
        f"  sotglp predict {model} {near}",
        f"  sotglp evaluate {model} {test} --ood {far}",
        f"  sotglp fit {train} --out mine.safetensors --backbone tiny --set learning_rate={rate}",
    ]


def painted_table(methods: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of a table with one row per method."""
    lines = [
        f"{'':48}OOD AUROC           OOD FPR95",
        f"{'':26}accuracy [95 %]         near   mid   far   near   mid   far   on parts  overlap   fit",
    ]
    for name, one in methods.items():
        low, high = one["interval"]
        cells = [f"{name:24}", f"{one['accuracy']:.3f} [{low:.3f}, {high:.3f}]  "]
        for measure in ("auroc", "fpr95"):
            cells.append(" ".join(f"{one['ood'][kind][measure]:.3f}" for kind in ("near", "mid", "far")))
        local = one["local"]
        cells.append(f"{local['mass_on_parts']:8.3f}" if local else f"{'-':>8}")
        cells.append(f"{local['overlap']:7.3f}" if local else f"{'-':>7}")
        cells.append(f"{one['seconds']:3.0f}s")
        lines.append("  ".join(cells))
    chance = next(one["local"]["chance"] for one in methods.values() if one["local"])
    lines.append("")
    lines.append(f"on parts: fraction of the prompts' transport mass on parts of the class; uniform {chance:.3f}")
    lines.append("overlap: common patches of two prompts of a class; 1 if they are the same")
    return lines


def _quoted(path: Path) -> str:
    """Quote a path, so that a command with it can be pasted."""
    return shlex.quote(str(path))
