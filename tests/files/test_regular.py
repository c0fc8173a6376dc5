import os
import socket

import pytest

from sotglp.files.regular import check_regular, read_regular


def test_files_and_folders_pass(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    check_regular(path)
    check_regular(tmp_path)
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link") == b"abc"


def test_pipes_sockets_and_devices_are_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("pipe", "device", "socket"):
            with pytest.raises(OSError, match="it is a pipe, a socket or a device"):
                read_regular(tmp_path / name)


def test_what_is_not_there_is_told_as_the_system_tells_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "absent")
    with pytest.raises(ValueError, match="null"):
        check_regular("nul\0")
