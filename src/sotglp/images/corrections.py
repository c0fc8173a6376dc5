"""Corrections of labels in a table, carried out on a copy of a folder of class folders."""

from __future__ import annotations

import os
import secrets
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sotglp.console.output import spreadsheet_text
from sotglp.console.text import as_utf8
from sotglp.errors import SotglpError, short_repr
from sotglp.files.atomic import os_reason
from sotglp.images.columns import Columns
from sotglp.images.labels import label_text
from sotglp.images.splits import read_sets
from sotglp.images.table import csv_rows

COLUMNS = ("path", "label", "action", "new_label", "reason")
ACTIONS = ("relabel", "remove", "keep")


@dataclass(frozen=True)
class Correction:
    """What to do with one image: ``path`` is relative to the folder, in POSIX notation."""

    path: str
    label: str
    action: str
    new_label: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Applied:
    """What was done: paths that were ``moved`` and ``removed``, relative to the folder, and what is worth a look.

    ``new_classes`` had no folder before, ``emptied`` class folders have no image now, and ``skipped`` is no file, or a
    link to a folder that was copied already.
    """

    n_copied: int
    moved: Mapping[str, str]
    removed: tuple[str, ...]
    n_undecided: int
    new_classes: tuple[str, ...]
    emptied: tuple[str, ...]
    skipped: tuple[str, ...]


def relative_name(path: Path, root: Path) -> str:
    """Return the name of an image in a table of corrections; bytes that are not UTF-8 are escaped."""
    return as_utf8(path.relative_to(root).as_posix()).decode()


def read_corrections(table: Path) -> list[Correction]:
    """Read a table with the columns of ``COLUMNS``, of which new_label and reason may be missing."""
    rows = csv_rows(table, lambda header: header if {"path", "action"} <= set(header) else [])
    header = [str(cell).lower() for cell in next(rows)[1]]
    if missing := [name for name in COLUMNS[:3] if name not in header]:
        raise SotglpError(f"{table} has no column {missing[0]}; `sotglp data check --corrections` writes such a table")
    found: dict[str, Correction] = {}
    for where, cells in rows:
        values = dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
        one = Correction(**{name: str(values.get(name, "")).strip() for name in COLUMNS})
        one = Correction(one.path, one.label, one.action.lower(), one.new_label, one.reason)
        if one.action and one.action not in ACTIONS:
            raise SotglpError(
                f"{table} has the action {short_repr(one.action)} in {where}; write {', '.join(ACTIONS)} or nothing"
            )
        if one.path in found:
            raise SotglpError(f"{table} lists {short_repr(one.path)} twice, in {where} too; remove one row")
        if one.action == "relabel" and not one.new_label:
            raise SotglpError(f"{table} has no new_label in {where}; fill it in, or remove the action")
        found[one.path] = one
    return list(found.values())


def apply_corrections(root: Path, corrections: Sequence[Correction], out: Path) -> Applied:
    """Copy a folder of class folders, or of splits, to ``out`` and carry out corrections on the copy.

    All files are copied but those to remove; relabelled images go to the folder of their new class, under another name
    if theirs is taken. Nothing is written if a correction can't be carried out, and ``out`` appears when it is whole.
    """
    check_copy(root, out)
    images = _images(root)
    moves: dict[Path, Path] = {}
    removed: dict[Path, str] = {}
    class_folders = {path: folders[label] for path, label, folders in images.values()}
    goes_to = dict(class_folders)
    new_classes: list[str] = []
    for one in corrections:
        found = images.get(_key(one.path))
        if found is None:
            raise SotglpError(
                f"there is no image {short_repr(one.path)} in {root}; give the folder for which the table was written"
            )
        path, label, folders = found
        if _key(spreadsheet_text(label)) != _key(one.label):
            raise SotglpError(
                f"{one.path} has the label {short_repr(label)} and not {short_repr(one.label)}, as in the table: the "
                "folder has changed since it was checked; check it again"
            )
        if one.action == "remove":
            removed[path] = one.path
            del goes_to[path]
        elif one.action == "relabel":
            wanted = _class_of(one, folders)
            if wanted not in folders:
                new_classes.append(wanted)
            if wanted != label:
                own = folders[label]
                goes_to[path] = folders.get(wanted, own.parent / wanted)
                moves[path] = goes_to[path].relative_to(root) / path.relative_to(own)
    files, skipped = _files(root)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
        beside.mkdir()
        try:
            done = _copy(root, files, moves, removed, beside)
            if out.exists():  # empty, or it would have been refused
                out.rmdir()
            os.rename(beside, out)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise SotglpError(
            f"copying {root} to {out} failed{where} ({os_reason(error)}), and nothing is left of the copy; check "
            "permissions and free space"
        ) from error
    lost = set(class_folders.values()) - set(goes_to.values())
    emptied = sorted(relative_name(folder, root) for folder in lost)
    undecided = sum(not one.action for one in corrections)
    return Applied(
        len(files) - len(removed), done, tuple(removed.values()), undecided, _once(new_classes), _once(emptied), skipped
    )


def check_copy(root: Path, out: Path) -> None:
    """Raise a SotglpError if ``root`` is no folder, or ``out`` exists or is in it."""
    if not os.path.isdir(root):
        raise SotglpError(f"{root} is not a folder; corrections are carried out on a folder of class folders")
    if os.path.lexists(out) and (os.path.islink(out) or not os.path.isdir(out) or any(os.scandir(out))):
        raise SotglpError(f"{out} exists: give another folder with --out; nothing is overwritten")
    source, target = Path(os.path.realpath(root)), Path(os.path.realpath(out))
    if target == source or source in target.parents:
        raise SotglpError(f"{out} is in {root}, which is not changed: give a folder elsewhere with --out")


def _images(root: Path) -> dict[str, tuple[Path, str, dict[str, Path]]]:
    """Return each image with its label and the class folders of its set by label, by name in the table."""
    found: dict[str, tuple[Path, str, dict[str, Path]]] = {}
    for folder, images in read_sets(root, Columns()).items():
        folders: dict[str, Path] = {}
        for path, label in zip(images.images, images.labels or (), strict=True):
            assert isinstance(path, Path)
            folders.setdefault(label, folder / path.relative_to(folder).parts[0])
            key = _key(spreadsheet_text(relative_name(path, root)))
            if key in found:
                raise SotglpError(f"{root} has two images whose name in a table is {short_repr(key)}; rename one")
            found[key] = (path, label, folders)
    return found


def _class_of(one: Correction, folders: Mapping[str, Path]) -> str:
    """Return the class that a new label means: one of the folder's, or a new one."""
    wanted = label_text(one.new_label, f"the new label of {one.path}")
    for name in folders:
        if _key(spreadsheet_text(name)) == _key(wanted):
            return name
    if wanted.startswith(".") or set("/\\\0") & set(wanted):
        raise SotglpError(f"the new label {short_repr(wanted)} of {one.path} can't be the name of a folder: change it")
    return wanted


def _files(root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """List all files below a folder; linked folders are followed once, and what is no file is skipped."""
    files: list[Path] = []
    skipped: list[str] = []
    visited: set[tuple[int, int]] = set()
    for folder, names, contents in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            skipped.append(os.path.relpath(folder, root))
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        names.sort()
        for name in sorted(contents):
            path = Path(folder, name)
            if path.is_file():
                files.append(path)
            else:  # a broken link or a pipe
                skipped.append(os.path.relpath(path, root))
    return files, tuple(skipped)


def _copy(
    root: Path, files: Sequence[Path], moves: Mapping[Path, Path], removed: Mapping[Path, str], beside: Path
) -> dict[str, str]:
    """Copy files, relabelled images last, and return the new names of these."""
    for path in files:
        if path not in moves and path not in removed:
            _copy_file(path, beside / path.relative_to(root))
    done = {}
    for path, target in moves.items():
        free = _free(beside / target)
        _copy_file(path, free)
        done[relative_name(path, root)] = relative_name(free, beside)
    return done


def _copy_file(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def _free(path: Path) -> Path:
    """Return the path, or with a number after its name if a file has it."""
    number, tried = 1, path
    while os.path.lexists(tried):
        number += 1
        tried = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return tried


def _key(text: str) -> str:
    """Return text as a table holds it: without spaces around it, composed (NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
