"""One target in a process of its own, since an input may hang or kill it: ``python fuzz/worker.py`` is for run.py."""

from __future__ import annotations

import argparse
import hashlib
import mmap
import random
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil
from targets import TARGETS

BOARD_BYTES = 2**20
MOST_GROWTH = 2 * 2**30
"""Bytes of memory above the start that no input may take."""

_COUNTS = struct.Struct("<6qd")


class Board:
    """Counts and the input at hand, in a file that outlives the process, however it ends."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(BOARD_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), BOARD_BYTES)
        self.n_run, self.n_accepted, self.n_refused, self.n_crashes, length, self.start_memory, self.began = (
            _COUNTS.unpack_from(self._memory)
        )
        self.content = self._memory[_COUNTS.size : _COUNTS.size + length]

    def put(self, content: bytes) -> None:
        """Write down the counts and what is about to be read; an empty input where nothing is."""
        content = content[: BOARD_BYTES - _COUNTS.size]
        counts = (self.n_run, self.n_accepted, self.n_refused, self.n_crashes, len(content), self.start_memory)
        # Not pack_into, which fills in zeros first, for run.py to see.
        self._memory[: _COUNTS.size] = _COUNTS.pack(*counts, time.time())
        self._memory[_COUNTS.size : _COUNTS.size + len(content)] = content


def save_crash(folder: Path, target: str, content: bytes, what: str) -> None:
    """Keep an input and what it did."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{target}-{hashlib.sha256(content).hexdigest()[:12]}"
    (folder / f"{name}.bin").write_bytes(content)
    (folder / f"{name}.txt").write_text(what, errors="backslashreplace")


def watched(read: Callable[[bytes], bool], target: str, board: Board, crashes: Path) -> Callable[[bytes], None]:
    """The reader, such that only what should not happen counts as a crash, once for each place it happens at."""
    from sotglp.errors import SotglpError

    places: set[tuple[str, ...]] = set()
    process = psutil.Process()
    board.start_memory = process.memory_info().rss

    def crashed(content: bytes, what: str, *place: str) -> None:
        if place not in places:
            places.add(place)
            board.n_crashes += 1
            save_crash(crashes, target, content, what)

    def run(content: bytes) -> None:
        board.n_run += 1
        board.put(content)
        try:
            if read(content):
                board.n_accepted += 1
            else:
                board.n_refused += 1
        except SotglpError:
            board.n_refused += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            crashed(content, traceback.format_exc(), type(error).__name__, last.filename, str(last.lineno))
        if (memory := process.memory_info().rss) > board.start_memory + MOST_GROWTH:
            crashed(content, f"memory grew to {memory} bytes", "memory")
            board.start_memory = memory
        board.put(b"")

    return run


def own_input(inputs: list[bytes], mutate: Callable[[bytes, random.Random], bytes], seed: int, index: int) -> bytes:
    """Input number ``index`` of the own engine: the whole ones first, then damaged ones."""
    if index < len(inputs):
        return inputs[index]
    draw = random.Random(f"{seed} {index}")
    return mutate(draw.choice(inputs), draw)


def main() -> None:
    """Run one target until its time or its number of inputs is up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("board", type=Path)
    parser.add_argument("crashes", type=Path)
    parser.add_argument("--engine", choices=("atheris", "own"), required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    target, board = TARGETS[options.target], Board(options.board)
    instrumented: AbstractContextManager[object] = nullcontext()
    if options.engine == "atheris":
        import atheris

        instrumented = atheris.instrument_imports(include=["sotglp", "PIL"])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "reader").mkdir()
        with instrumented:
            inputs, read = target.prepare(Path(folder) / "reader")
        run = watched(read, options.target, board, options.crashes)
        if options.engine == "own":
            end = time.monotonic() + options.seconds
            while time.monotonic() < end:
                run(own_input(inputs, target.mutate, options.seed, board.n_run))
            return
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for index, content in enumerate(inputs):
            (corpus / str(index)).write_bytes(content)

        def mutate(content: bytes, most_bytes: int, seed: int) -> bytes:
            draw = random.Random(seed)
            if draw.random() < 0.5:
                return bytes(atheris.Mutate(content, most_bytes))
            return target.mutate(content, draw)[:most_bytes]

        # Memory and time are watched here and in run.py, which go on after a crash; a timeout of 0 would be one second.
        limits = [
            "-timeout=100",
            "-rss_limit_mb=0",
            "-max_len=131072",
            f"-max_total_time={max(round(options.seconds), 1)}",
        ]
        flags = [*limits, f"-seed={options.seed % 2**31 or 1}", f"-artifact_prefix={folder}/", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], run, custom_mutator=mutate)
        # Leaves the process when the time is up.
        atheris.Fuzz()


if __name__ == "__main__":
    main()
