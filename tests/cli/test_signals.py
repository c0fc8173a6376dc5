"""Ctrl-C, SIGTERM and SIGKILL: one line, the exit code of shells, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sotglp.cli.signals import LAUNCHER
from support.processes import hear_interrupts, needs_proc, started, wait_for
from support.samples import make_class_folders
from support.web_server import make_model

IN_IMPORT = """
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), {stop})
            except {caught} as error:
                raise ImportError("cannot load module more than once per process")
sys.meta_path.insert(0, Finder())
sys.argv = ["sotglp", *{arguments!r}]
from sotglp.__main__ import main
main()
"""

PREDICT = ("predict", "m.safetensors", "photos")


def interrupted(
    module: str, *arguments: str, stop: signal.Signals = signal.SIGINT, caught: str = "ZeroDivisionError"
) -> subprocess.CompletedProcess[str]:
    """Run a command that receives a signal while it imports a module; an exception it catches is another error."""
    code = IN_IMPORT.format(module=module, stop=int(stop), caught=caught, arguments=arguments)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, preexec_fn=hear_interrupts
    )


@pytest.mark.parametrize("module", ["sotglp.cli", "sotglp.errors", "typer", "numpy"])
def test_ctrl_c_during_an_import_ends_with_one_line(module: str) -> None:
    done = interrupted(module, *PREDICT)
    assert done.stderr == "sotglp: interrupted\n"
    assert done.returncode == 130


@pytest.mark.parametrize(("stop", "caught"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")])
def test_a_library_that_turns_a_signal_into_another_error_is_no_failure(stop: signal.Signals, caught: str) -> None:
    done = interrupted("numpy", *PREDICT, stop=stop, caught=caught)
    assert done.stderr == "sotglp: interrupted\n"
    assert done.returncode == 128 + stop


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["fit", "photos", "--out", "m"], "; repeat the command with --resume to continue"),
        (["benchmark", "suite.yaml"], "; repeat the command to continue"),
        (["demo"], ""),
        (["--debug", "predict", "m", "fit"], ""),
        (["predict", "m", "photos", "--out", "rows"], "; repeat the command to continue"),
    ],
)
def test_only_commands_that_can_be_continued_say_so(arguments: list[str], advice: str) -> None:
    done = interrupted("typer", *arguments)
    assert (done.stderr, done.returncode) == (f"sotglp: interrupted{advice}\n", 130)


def test_a_command_that_was_started_to_ignore_ctrl_c_does() -> None:
    code = IN_IMPORT.format(module="typer", stop=int(signal.SIGINT), caught="OSError", arguments=["--version"])
    command = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(("is_started_by_us", "line"), [(False, "sotglp: interrupted\n"), (True, "")])
def test_of_several_processes_the_one_that_starts_them_reports(is_started_by_us: bool, line: str) -> None:
    code = "import os, sys, sotglp.cli as c; sys.argv[1:] = ['predict']\n"
    code += f"c._run = lambda: os.environ.update({LAUNCHER}='1') or sys.exit(130)\nc.main()"
    env = {**os.environ, **({LAUNCHER: str(os.getpid())} if is_started_by_us else {})}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert (done.stderr, done.returncode) == (line, 130)


@needs_proc
@pytest.mark.thorough
@pytest.mark.slow
def test_no_process_of_a_fit_outlives_the_one_that_started_them(tmp_path: Path) -> None:
    make_class_folders(tmp_path / "train", per_class=4, seed=0)
    command = ["fit", tmp_path / "train", "--out", tmp_path / "m", "--backbone", "tiny", "--epochs", "5000"]
    command += ["--no-cache", "--num-processes", "2"]
    with started("-m", "sotglp", *command, mark=tmp_path) as run:
        wait_for((tmp_path / "m.checkpoint").exists, run.process)
        assert len(run.alive()) == 3
        run.process.kill()
        assert run.all_end()


LOADING = """
import sys
from pathlib import Path
from sotglp.images.image_set import ImageSet
from sotglp.images.views import load_batches
from torchvision.transforms import ToTensor
images = ImageSet.from_path(Path(sys.argv[1]))
if __name__ == "__main__":
    for _ in load_batches(images, ToTensor(), [[0]] * 100000, workers=2):
        Path(sys.argv[2]).touch()
"""


@needs_proc
@pytest.mark.slow
def test_no_process_that_loads_images_outlives_the_one_that_trains(tmp_path: Path) -> None:
    make_class_folders(tmp_path / "train", per_class=1, seed=0)
    with started("-c", LOADING, tmp_path / "train", tmp_path / "loaded", mark=tmp_path) as run:
        wait_for((tmp_path / "loaded").exists, run.process)
        assert len(run.alive()) == 3
        run.process.kill()
        assert run.all_end()


@needs_proc
def test_no_process_that_decodes_uploads_outlives_the_server(tmp_path: Path) -> None:
    model = make_model(tmp_path, calibrated=False)
    with started("-m", "sotglp", "serve", model, "--port", 0, mark=tmp_path) as run:
        wait_for(lambda: len(run.alive()) > 2, run.process)
        run.process.kill()
        assert run.all_end()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_interpreter_shuts_down_ends_it_quietly(stop: signal.Signals) -> None:
    code = f"import atexit, os, sys; atexit.register(os.kill, os.getpid(), {int(stop)}); from sotglp.cli import main; "
    code += "sys.argv[1:] = ['--version']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == -stop


def test_a_second_signal_to_end_does_not_interrupt_the_cleaning_up() -> None:
    code = """
import os, signal, sotglp.cli
def run():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned")
sotglp.cli._run = run
sotglp.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "cleaned\n"
    assert done.returncode == 128 + signal.SIGTERM
