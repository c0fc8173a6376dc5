"""``sotglp demo``: the whole pipeline offline, on pictures that it paints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from sotglp.cli.options import Debug, Json
from sotglp.console.output import check_result_file, say, write_json


def demo(
    out: Annotated[Path, typer.Option(help="Folder for photos, model and pictures.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of training pictures and training.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier demonstration left in OUT.")] = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Compare methods on a small world of painted shapes, without any download.

    [bold]Example[/bold]: sotglp demo --out demo

    Twenty classes, sixteen pictures of each to learn from, and a small CLIP that lies in the package. OUT then holds
    the pictures, a model file and plan.png: what each local prompt looked at.
    """
    from sotglp.demo.show import check_folder, run_demo

    check_result_file(json_file)
    check_folder(out, force=force)
    json_target = json_file or str(out / "result.json")
    check_result_file(json_target)
    result = run_demo(out, seed=seed, force=force)
    write_json(json_target, result)
    for line in [*table(result["methods"]), "", *_what_next(out, result)]:
        say(line, json_target=json_file)


def table(methods: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of a table of results, one for each method."""
    columns = [
        f"{'':24}",
        "accuracy [95 %]       ",
        "near   mid   far ",
        "near   mid   far ",
        "on parts",
        "overlap",
        " fit",
    ]
    lines = [
        f"{'':48}OOD AUROC           OOD FPR95",
        "  ".join(columns),
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
    lines.append(f"on parts: share of the prompts' transport mass on parts of the class; {chance:.3f} if spread evenly")
    lines.append("overlap: how much the patches of two prompts of a class have in common; 1 if they are the same")
    return lines


def _what_next(out: Path, result: dict[str, Any]) -> list[str]:
    from sotglp.demo.comparison import SETTINGS
    from sotglp.demo.show import MODEL, PHOTOS, PICTURE

    # Quoted, as the commands are there to be pasted.
    model, photos = shlex.quote(str(out / MODEL)), out / PHOTOS
    train, test, near, far = (shlex.quote(str(photos / name)) for name in ("train", "test", "near", "far"))
    return [
        f"{out / PICTURE} shows what each prompt looked at ({result['seconds']:.0f} s in all). Try next:",
        f"  sotglp predict {model} {near}",
        f"  sotglp evaluate {model} {test} --ood {far}",
        f"  sotglp fit {train} --out mine.safetensors --backbone tiny --set learning_rate={SETTINGS.learning_rate}",
    ]
