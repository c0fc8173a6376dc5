"""The commands of README on photos that nobody here had seen, with one or more versions of sotglp in turn.

Each command is a process. Rows are written as JSON lines when they are finished, and what a command printed into files
beside them; the same command resumes an interrupted run. The table goes to docs/new_user.md by ``--table``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHOTS, TESTS, OTHERS = 5, 8, 20
"""Training photos and test photos of a class, and photos of no class."""

SETS = {
    "pacs_photo": ("guitar", "ood/imagenet_samples"),
    "ship/trash": ("metal", "ship/ood/other_things"),
    "ship/clothing": ("pants", "ship/ood/other_things"),
}
"""Each set, the class that is added to the model, and photos of no class."""

STEPS = (
    ("fit", "fit photos/train --out birds.safetensors"),
    ("evaluate", "evaluate birds.safetensors photos/test --ood photos/other_things --json result.json"),
    ("predict", "predict birds.safetensors photos/other_things photos/test/{known} --csv result.csv"),
    ("info", "info birds.safetensors"),
    ("fit --calibrate", "fit photos/train --out sure.safetensors --calibrate"),
    ("predict, unknown photos", "predict sure.safetensors photos/other_things"),
    ("classes add", "classes add sure.safetensors {new} new/ --out more.safetensors"),
    ("predict, added class", "predict more.safetensors new_test/"),
    ("data check", "data check photos --html labels.html --corrections corrections.csv"),
    ("data apply", "data apply photos corrections.csv --out photos_corrected"),
    ("explain", "explain birds.safetensors {photo} --out maps.png --top 2"),
    ("report", "report birds.safetensors photos/test --ood photos/other_things --out report.html"),
    ("export", "export birds.safetensors --out birds.onnx"),
    ("predict, ONNX", "predict birds.onnx {photo}"),
)

BEFORE = {
    "predict, unknown photos": "predict sure.safetensors photos/other_things --unknown",
    "data check": "data check photos/train",
}
"""The commands of the README before, where they differ."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="+", metavar="NAME=COMMAND", help="before=..., after=...: commands of sotglp")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("build/new_user"))
    parser.add_argument("--table", action="store_true", help="Print the table of the rows.")
    arguments = parser.parse_args()
    versions = dict(version.split("=", 1) for version in arguments.versions)
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows_file = arguments.work / "rows.jsonl"
    rows_file.touch()
    done = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    known = {(row["set"], row["step"], row["version"]) for row in done}
    if arguments.table:
        print("\n".join(table(done, list(versions))))
        return
    for dataset in SETS:
        for version in versions:
            lay_out(arguments.data, dataset, folder_of(arguments.work, dataset, version))
        for step, version, command in commands(dataset, list(versions)):
            if (dataset, step, version) in known:
                continue
            folder = folder_of(arguments.work, dataset, version)
            row = {
                "set": dataset,
                "step": step,
                "version": version,
                **run(versions[version], command, SETS[dataset][0], folder),
            }
            done.append(row)
            with rows_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def folder_of(work: Path, dataset: str, version: str) -> Path:
    return work / dataset.replace("/", "_") / version


def lay_out(data: Path, dataset: str, folder: Path) -> None:
    """Copy a few photos into the folders of README; the photos of the class that is added are not in photos/train."""
    if folder.exists():
        return
    new, others = SETS[dataset]
    for part, n in (("train", SHOTS), ("test", TESTS)):
        for one in sorted((data / dataset / part).iterdir()):
            is_new = one.name == new
            goal = folder / ({"train": "new", "test": "new_test"}[part] if is_new else f"photos/{part}/{one.name}")
            copy(one, goal, n)
    copy(data / others, folder / "photos" / "other_things", OTHERS)


def copy(source: Path, goal: Path, n: int) -> None:
    """Copy n files that are spread over a folder, since neighbours often show one thing."""
    files = sorted(source.iterdir())
    goal.mkdir(parents=True)
    for index in range(n):
        file = files[index * len(files) // n]
        shutil.copyfile(file, goal / file.name)


def commands(dataset: str, versions: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield step, version and command, the versions in turn."""
    for step, command in STEPS:
        for version in versions:
            yield step, version, BEFORE.get(step, command) if version == "before" else command


def run(sotglp: str, command: str, new: str, folder: Path) -> dict[str, Any]:
    """Run a command in a folder with its own cache; return seconds, CPU seconds and exit code."""
    known = sorted(path.name for path in (folder / "photos" / "test").iterdir())[0]
    photo = min((folder / "photos" / "test" / known).iterdir()).relative_to(folder)
    line = command.format(known=known, photo=photo, new=new)
    environment = {**os.environ, "SOTGLP_CACHE": str((folder / "cache").resolve()), "OMP_NUM_THREADS": "1"}
    begin, before = time.monotonic(), os.times()
    result = subprocess.run(
        [*shlex.split(sotglp), *shlex.split(line)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    printed = f"$ sotglp {line}\n{result.stdout}--- standard error\n{result.stderr}--- exit code {result.returncode}\n"
    with (folder / "printed.txt").open("a", encoding="utf-8") as file:
        file.write(printed)
    return {"command": line, "seconds": time.monotonic() - begin, "cpu": cpu, "code": result.returncode}


def table(done: list[dict[str, Any]], versions: list[str]) -> list[str]:
    """Return the rows of the page: CPU seconds of each command on each finished set, version by version."""
    counts = Counter(row["set"] for row in done)
    finished = [dataset for dataset in SETS if counts[dataset] == len(STEPS) * len(versions)]
    columns = [(dataset, version) for dataset in finished for version in versions]
    head = ["step", *(f"{dataset}, {version}" for dataset, version in columns)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    by_cell = {(row["step"], row["set"], row["version"]): row for row in done}
    totals = dict.fromkeys(columns, 0.0)
    for step, _ in STEPS:
        cells = []
        for column in columns:
            row = by_cell.get((step, *column))
            works = row is not None and row["code"] == 0
            totals[column] += row["cpu"] if row is not None and works else 0
            cells.append(f"{row['cpu']:.1f}" if row is not None and works else "-")
        lines.append(f"| {' | '.join([step, *cells])} |")
    return [*lines, f"| all, minutes | {' | '.join(f'{totals[column] / 60:.1f}' for column in columns)} |"]


if __name__ == "__main__":
    main()
