"""Seconds from a command to its result, as processes: `python benchmarks/user_times.py [--before CHECKOUT]`.

Each command of a user (fit, fit --calibrate, predict, evaluate, explain, report, serve to its first answer) runs with
this checkout, with another one that has its own virtual environment in .venv, and beside a process that trains
scikit-learn's logistic regression on features of the same tower. Checkouts take turns, and every run has an empty
feature cache. Appends a row for each run to `--rows`, so that an interrupted measurement can be resumed, and writes
docs/user_times.md. ViT-B/16 has random weights, which changes no duration.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from user_times_page import DOCS, SIZES, VIT, write_page

DATASET = "flowers102"
CASES = ("fit", "calibrate", "predict", "evaluate", "explain", "report", "serve")


class Usage(NamedTuple):
    """What a process took."""

    seconds: float
    cpu_seconds: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--before", type=Path, help="another checkout, with its .venv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 100, 10000], help="numbers of images to predict")
    parser.add_argument("--vit-images", type=int, nargs="+", default=[1, 20], help="the same for ViT-B/16")
    parser.add_argument("--backbones", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--rows", type=Path, default=DOCS / "user_times.jsonl")
    parser.add_argument("--work", type=Path, help="folder for images, weights and models; default a temporary one")
    chosen = parser.parse_args()
    pythons = {"after": Path(sys.executable)}
    if chosen.before:
        pythons = {"before": chosen.before / ".venv/bin/python", **pythons}
    with tempfile.TemporaryDirectory() as temporary:
        work = (chosen.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for backbone in chosen.backbones:
            numbers = chosen.images if backbone == "photo" else chosen.vit_images
            Measurement(backbone, numbers, work, chosen.data, pythons, chosen.rows).run(chosen.rounds, chosen.cases)
    write_page(read_rows(chosen.rows))


class Measurement:
    """The runs with one backbone."""

    def __init__(
        self, backbone: str, numbers: list[int], work: Path, data: Path, pythons: dict[str, Path], rows: Path
    ) -> None:
        self.backbone, self.numbers, self.pythons, self.rows = backbone, numbers, pythons, rows
        self.folder = work / backbone
        self.weights: list[str] = []
        if backbone == VIT:
            file = self.folder / "weights.safetensors"
            if not file.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                subprocess.run(plain("weights", str(file)), check=True)
            self.weights = ["--pretrained", str(file)]
        n_classes, n_shots = SIZES[backbone]
        for part in ("train", "test"):
            for own in sorted((data / DATASET / part).iterdir())[:n_classes]:
                copy_images(sorted(own.iterdir())[:n_shots], self.folder / part / own.name)
        tests = sorted((self.folder / "test").glob("*/*"))
        for number in numbers:
            copy_images([tests[i % len(tests)] for i in range(number)], self.folder / f"images{number}")

    def run(self, rounds: int, cases: list[str]) -> None:
        """Run what has no row yet."""
        for number in range(rounds):
            for case in cases:
                for label, command in self.commands(case):
                    self.measure(number, label, "sklearn", self.baseline(label))
                    for who, python in self.pythons.items():
                        self.measure(number, label, who, partial(command, who, python))
            if "predict" in cases:
                child = plain("tower", self.backbone, *self.weights[1:])
                self.measure(number, "tower", "tower", lambda child=child: float(output(child)))

    def measure(self, number: int, label: str, who: str, run: Callable[[], Usage | float] | None) -> None:
        """Add a row, unless there is one for this round."""
        found = [
            row
            for row in read_rows(self.rows)
            if (row["backbone"], row["case"], row["who"]) == (self.backbone, label, who)
        ]
        if run is None or len(found) > number:
            return
        result = run()
        values = {"images_per_second": result} if isinstance(result, float) else result._asdict()
        row = {"backbone": self.backbone, "case": label, "who": who, **values}
        with self.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def commands(self, case: str) -> list[tuple[str, Callable[[str, Path], Usage]]]:
        """The runs of a case: a label each, and a function of a checkout's name and interpreter."""
        own = self.folder
        image = str(next((own / "test").glob("*/*")))
        test, page = str(own / "test"), str(own / "out.html")
        if case == "serve":
            return [("serve, first answer", lambda who, python: self.served(python, self.model(who, python), image))]
        arguments: dict[str, Callable[[str], list[str]]] = {
            "fit": lambda _: [
                "fit",
                str(own / "train"),
                "--backbone",
                self.backbone,
                "--out",
                str(own / "out.safetensors"),
            ],
            "evaluate": lambda model: ["evaluate", model, test],
            "explain": lambda model: ["explain", model, image, "--out", str(own / "out.png"), "--force"],
            "report": lambda model: ["report", model, test, "--out", page, "--force"],
        }
        arguments["calibrate"] = lambda model: [*arguments["fit"](model), "--calibrate"]
        if case == "predict":
            return [
                (
                    f"predict {number}",
                    self.command(lambda model, number=number: ["predict", model, str(own / f"images{number}")]),
                )
                for number in self.numbers
            ]
        return [({"calibrate": "fit --calibrate"}.get(case, case), self.command(arguments[case]))]

    def command(self, arguments: Callable[[str], list[str]]) -> Callable[[str, Path], Usage]:
        """Return the run of a command, whose arguments depend on the model file."""

        def run(who: str, python: Path) -> Usage:
            needs_model = arguments("")[0] != "fit"
            model = str(self.model(who, python)) if needs_model else ""
            force = [] if needs_model else ["--force"]
            return usage([str(python), "-m", "sotglp", *arguments(model), *self.weights, *force])

        return run

    def model(self, who: str, python: Path) -> Path:
        """A model that a checkout has fitted, in one epoch."""
        file = self.folder / f"{who}.safetensors"
        if not file.exists():
            command = ["fit", str(self.folder / "train"), "--backbone", self.backbone, *self.weights, "--epochs", "1"]
            usage([str(python), "-m", "sotglp", *command, "--out", str(file)])
        return file

    def served(self, python: Path, model: Path, image: str) -> Usage:
        """From the start of the server to its answer for one image."""
        command = [str(python), "-m", "sotglp", "serve", str(model), "--port", "0", *self.weights]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            address = next(word for word in process.stdout.readline().split() if word.startswith("http://")).rstrip(
                "/."
            )
            request = urllib.request.Request(f"{address}/predict", *multipart(Path(image)))
            urllib.request.urlopen(request).read()
            seconds = time.perf_counter() - start
            process.terminate()
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
        return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)

    def baseline(self, label: str) -> Callable[[], Usage] | None:
        """Logistic regression, as far as it can do the same."""
        train = str(self.folder / "train")
        asked = {f"predict {number}": str(self.folder / f"images{number}") for number in self.numbers}
        if label != "fit" and label not in asked:
            return None
        file = str(self.folder / "sklearn.joblib")
        rest = self.weights[1:]

        def fit() -> Usage:
            return usage(plain("sklearn", self.backbone, "fit", train, file, *rest))

        def predict() -> Usage:
            if not os.path.exists(file):
                fit()
            return usage(plain("sklearn", self.backbone, "predict", asked[label], file, *rest))

        return fit if label == "fit" else predict


def plain(*arguments: str) -> list[str]:
    """Return the command of a process without sotglp's own code."""
    return [sys.executable, str(Path(__file__).with_name("user_times_plain.py")), *arguments]


def copy_images(files: list[Path], folder: Path) -> None:
    """Link images into a folder, each under a different name."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, file in enumerate(files):
        target = folder / f"{index:05d}{file.suffix}"
        if not target.exists():
            shutil.copy(file, target)


def usage(command: list[str]) -> Usage:
    """Run a command with an empty cache."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile() as log:
        # The command line sets this itself. Where other programs use the cores, threads that spin would only slow the
        # regression.
        environment = {**os.environ, "SOTGLP_CACHE": cache, "OMP_WAIT_POLICY": "PASSIVE"}
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {log.read().decode()[-2000:]}")
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def multipart(image: Path) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with one image."""
    head = f'--end\r\nContent-Disposition: form-data; name="images"; filename="{image.name}"\r\n\r\n'
    body = head.encode() + image.read_bytes() + b"\r\n--end--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=end"}


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
