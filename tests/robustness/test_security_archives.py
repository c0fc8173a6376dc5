"""Archives of datasets, from a server or a network that means harm: nothing is written outside the dataset's folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from torchvision.datasets import utils

from sotglp import SotglpError
from sotglp.datasets import ENTRIES
from sotglp.datasets.entry import Entry
from sotglp.datasets.preparing import prepare

FETCHED = [entry for entry in ENTRIES.values() if entry.download is not None]


def member(archive: tarfile.TarFile, name: str, *, link: str = "", kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 0 if link else 4
    archive.addfile(info, io.BytesIO(b"evil"))


def evil_archive(path: Path, how: str, outside: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("../" * 12 + str(outside).lstrip("/"), "evil")
        return
    with tarfile.open(path, "w:gz") as archive:
        if how == "parent":
            member(archive, "../../../evil")
        if how == "absolute":
            member(archive, str(outside))
        if how == "symlink":
            member(archive, "link", link=str(outside.parent), kind=tarfile.SYMTYPE)
            member(archive, "link/evil")
        if how == "hard link":
            member(archive, "images", link="../../../kept", kind=tarfile.LNKTYPE)
            member(archive, "images")


@pytest.mark.parametrize("how", ["parent", "absolute", "symlink", "hard link"])
@pytest.mark.parametrize("entry", FETCHED, ids=lambda entry: entry.name)
def test_an_archive_stays_within_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Entry, how: str
) -> None:
    outside, kept, root = tmp_path / "evil", tmp_path / "kept", tmp_path / "data"
    kept.write_text("mine")
    served = []

    def serve(url: str, path: str | Path, *_: object) -> None:
        served.append(url)
        evil_archive(Path(path), how, outside)

    def serve_from_drive(file_id: str, folder: str, filename: str, md5: str | None = None) -> None:
        serve(file_id, Path(folder) / filename)
        if not utils.check_integrity(str(Path(folder) / filename), md5):
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(utils, "_urlretrieve", serve)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(utils, "download_file_from_google_drive", serve_from_drive)
    # Without a checksum the archive is unpacked, and a member that is named from the root lands below the folder.
    is_tamed = entry.name == "fgvc_aircraft" and how == "absolute"
    refused = pytest.raises(SotglpError, match=r"torchvision's download of \w+ failed \([^\n]*\)")
    with nullcontext() if is_tamed else refused:
        prepare(entry, root)
    assert served
    assert kept.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [root, kept]
    assert is_tamed or not list(root.iterdir())


def test_a_sound_archive_without_checksum_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(url: str, path: str | Path, *_: object) -> None:
        with tarfile.open(path, "w:gz") as archive:
            member(archive, "fgvc-aircraft-2013b/data/variants.txt")

    monkeypatch.setattr(utils, "_urlretrieve", serve)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    entry = ENTRIES["fgvc_aircraft"]
    assert prepare(entry, tmp_path)
    assert (entry.path(tmp_path) / "fgvc-aircraft-2013b/data/variants.txt").read_text() == "evil"
