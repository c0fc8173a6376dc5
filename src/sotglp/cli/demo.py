"""``sotglp demo``: the whole pipeline offline, on painted shapes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from sotglp.cli import options
from sotglp.console.output import check_outputs, emit, write_json
from sotglp.console.progress import note_loading


def demo(
    out: Annotated[Path, Option(help="Folder for photos, model and figure.")] = Path("demo"),
    seed: Annotated[int, Option(min=0, max=2**63 - 1, help="Seed of training images and training.")] = 1,
    force: Annotated[bool, Option("--force", help="Replace the files of an earlier demo in OUT.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Compare methods on a small world of painted shapes, without any download.

    [bold]Example[/bold]: sotglp demo --out demo

    The task has 20 classes with 16 training images each, and a small CLIP that ships with the package. OUT then holds
    the images, a model file and plan.png, which shows the patches that each local prompt used.
    """
    note_loading()
    from sotglp.demo import show

    check_outputs({"--json": json_file})  # before a folder is made
    show.check_folder(out, force=force)
    target = json_file or str(out / "result.json")
    check_outputs({"--json": target}, {name: out / name for name in (show.MODEL, show.PICTURE)}, force=force)
    result = show.run_demo(out, seed=seed, force=force)
    if not json_file:
        write_json(target, result)
    # Quoted, so that the commands can be pasted.
    model, photos = shlex.quote(str(out / show.MODEL)), out / show.PHOTOS
    train, test, near, far = (shlex.quote(str(photos / name)) for name in ("train", "test", "near", "far"))
    rate = show.SETTINGS.learning_rate
    lines = [
        *table(result["methods"]),
        "",
        f"{out / show.PICTURE} shows the patches that each prompt used ({result['seconds']:.0f} s in all). Try next:",
        f"  sotglp predict {model} {near}",
        f"  sotglp evaluate {model} {test} --ood {far}",
        f"  sotglp fit {train} --out mine.safetensors --backbone tiny --set learning_rate={rate}",
    ]
    emit(lines, result, json_file)


def table(methods: dict[str, dict[str, Any]]) -> list[str]:
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
