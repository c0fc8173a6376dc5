from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sotglp.console.streams import complain, is_standard_output, prepare_streams, stream_error, write_result

NAMES = "\u043a\u043e\u0442 \u5b66\u6821 \U0001f436 caf\u00e9"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_letters_that_an_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    prepare_streams()
    print(NAMES, flush=True)
    complain(NAMES)
    for stream in (out, err):
        assert isinstance(stream.buffer, io.BytesIO)
        text = stream.buffer.getvalue().decode(encoding)
        assert NAMES in text.encode("latin-1", "backslashreplace").decode("unicode_escape") or NAMES in text
    written = len(out.buffer.getvalue())  # type: ignore[attr-defined]
    write_result(json.dumps([NAMES], ensure_ascii=False))
    assert json.loads(out.buffer.getvalue()[written:].decode()) == [NAMES]  # type: ignore[attr-defined]


def test_streams_that_are_closed_or_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    prepare_streams()
    print("nobody reads this")
    complain("nor this")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    write_result(NAMES)
    assert sys.stdout.getvalue() == NAMES


def test_names_of_standard_output() -> None:
    assert all(map(is_standard_output, ("-", "/dev/stdout", "/dev/fd/1")))
    assert not any(map(is_standard_output, (None, "", "stdout", "/dev/stderr")))


def test_only_errors_of_streams_are_taken_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert str(stream_error(BrokenPipeError(errno.EPIPE, "Broken pipe"))) == ""
    assert "No space left" in str(stream_error(OSError(errno.ENOSPC, "No space left on device")))
    assert stream_error(OSError(errno.ENOSPC, "No space left on device", "cache/entry")) is None
    assert stream_error(OSError(errno.ECONNRESET, "reset")) is None


COMMANDS = (["info", "--presets"], ["info", "--presets", "--json", "-"], ["fit", "--help"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_or_closed_output_is_no_traceback(command: list[str]) -> None:
    run = [sys.executable, "-m", "sotglp", *command]
    with open("/dev/full", "w") as full:
        done = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("sotglp: error: standard output can't be written (No space left on device)")
    assert done.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(run, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_json_to_a_pipe_is_written(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "sotglp", "info", "--suites", "--json"]
    done = subprocess.run([*run, "/dev/stdout"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["suites"]
    reader, writer = os.pipe()
    done = subprocess.run([*run, f"/dev/fd/{writer}"], pass_fds=[writer], capture_output=True, text=True, timeout=60)
    os.close(writer)
    with open(reader) as stream:
        assert json.load(stream)["suites"]
    os.mkfifo(tmp_path / "unread")
    done = subprocess.run([*run, tmp_path / "unread"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "nobody reads it" in done.stderr
