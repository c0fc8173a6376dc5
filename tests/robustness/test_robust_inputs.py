"""Hostile, broken and merely odd inputs, as users meet them: one sentence or a result, never a hang or a crash."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.errors import UnreadableImageError
from sotglp.features.views import Views, in_order
from sotglp.images.decode import open_image
from sotglp.images.digest import content_digest
from sotglp.images.few_shot import draw_shots
from sotglp.images.image_set import ImageSet
from sotglp.model_file.save import save_model
from support.command import fails, run_here
from support.samples import COLOURS, coloured_image, make_class_folders, tiny_clip

# A command that waits for a pipe would wait for ever.
SECONDS = 240

FIT = [
    "--backbone",
    "tiny",
    "--shots",
    "2",
    "--epochs",
    "1",
    "--set",
    "augment=false",
    "--set",
    "top_k=3",
    "--no-cache",
]

MEBIBYTE = 2**20

ODD_FILES = (
    "with blank.png",
    "-rf.png",
    "--json.png",
    'comma, quote".png',
    "émeu.png",
    unicodedata.normalize("NFD", "décor.png"),
    "\N{DOG FACE}\N{ZERO WIDTH JOINER}.png",
    "two\nlines.png",
    "tab\tand\x1b[31mred.png",
    "#%&{}$!'`*?.png",
    "x" * 251 + ".png",
)
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


class Printed(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


Command = Callable[..., Printed]


@pytest.fixture
def sotglp(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process, which saves the seconds that a new one takes to start."""

    def run(*arguments: object, code: int = 0) -> Printed:
        return Printed(*run_here(capsys, monkeypatch, *arguments, code=code))

    return run


def as_process(*arguments: object, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sotglp", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    coloured_image(np.random.default_rng(0), (200, 60, 50)).save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, SOTGLP(Backbone.load("tiny"), list(COLOURS), top_k=3))
    return path


# Decompression bombs, and memory.


def png(width: int, height: int, *chunks: tuple[bytes, bytes], colour: int = 2) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*one) for one in chunks) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b";"


def tiff(width: int, height: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 1}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + fields + bytes(4)


def jp2(width: int, height: int) -> bytes:
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, width, height, 0, 0, 1) + bytes([7, 1, 1])
    style = b"\xff\x52" + struct.pack(">HBBHB", 12, 0, 0, 1, 0) + bytes([0, 4, 4, 0, 1])
    quantised = b"\xff\x5c" + struct.pack(">HBB", 4, 0x40, 0x40)
    part = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93"
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + style + quantised + part + b"\xff\xd9"


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def zipped(n_mebibytes: int) -> bytes:
    packer = zlib.compressobj()
    return b"".join([*(packer.compress(bytes(MEBIBYTE)) for _ in range(n_mebibytes)), packer.flush()])


def peak(statement: str, *arguments: object) -> int:
    """Bytes that a statement about ``open_image`` adds to the memory of a fresh process, at most."""
    script = (
        "import resource, sys\n"
        "from sotglp.images.decode import UnreadableImageError, open_image\n"
        "from PIL import Image; Image.init()\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"before = used()\n{statement}\nprint(used() - before)"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


BOMBS = {
    "png": png(60_000, 60_000, (b"IDAT", zipped(1))),
    "gif": gif(65_535, 65_535),
    "tiff": tiff(100_000, 100_000),
    "jp2": jp2(100_000, 100_000),
    "bmp": bmp(60_000, 60_000),
    "whole png of zeros": png(14_000, 14_000, (b"IDAT", zipped(14_000 * 42_001 // MEBIBYTE + 1))),
}


def test_decompression_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    for name, content in BOMBS.items():
        assert len(content) < MEBIBYTE
        with pytest.raises(UnreadableImageError, match="than the limit of 178956970"):
            open_image(content)
        (tmp_path / name).write_bytes(content)
    refuse_all = (
        "for path in sys.argv[1:]:\n"
        "    try: open_image(path)\n"
        "    except UnreadableImageError: continue\n"
        "    raise SystemExit(path)"
    )
    assert peak(refuse_all, *(tmp_path / name for name in BOMBS)) < 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [("text", b"zTXt"), ("profile", b"iCCP"), ("international", b"iTXt")],
)
def test_bombs_beside_the_pixels_of_a_png_stay_packed(tmp_path: Path, kind: str, chunk: bytes) -> None:
    head = b"about\0\x01\0\0\0" if chunk == b"iTXt" else b"about\0\0"
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 2, (chunk, head + zipped(120)), (b"IDAT", zlib.compress(bytes(14)))))
    read = "try: open_image(sys.argv[1])\nexcept UnreadableImageError: pass"
    assert peak(read, path) < 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("mode", "name", "bytes_per_pixel"),
    [
        # Pillow holds a pixel in 4 bytes (gray in 1), and so does the result.
        ("RGB", "a.png", 8),
        ("RGBA", "a.png", 8),
        ("LA", "a.png", 8),
        ("L", "a.png", 5),
        ("I;16", "a.png", 6),
        ("F", "a.tif", 8),
        ("RGB", "a.jpg", 8),
    ],
)
def test_a_large_image_takes_memory_for_itself_and_its_copy(
    tmp_path: Path, mode: str, name: str, bytes_per_pixel: int
) -> None:
    side = 5000
    path = tmp_path / name
    Image.new(mode, (side, side)).save(path, **({"compress_level": 1} if name == "a.png" else {}))
    # Three bands of 2**22 pixels and what the decoder needs lie between.
    assert peak("open_image(sys.argv[1])", path) < side**2 * bytes_per_pixel + 160 * MEBIBYTE


def test_of_many_frames_the_first_is_read_alone(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (700, 700), (n, 2 * n, 9)) for n in range(60)]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert open_image(tmp_path / name).size == (700, 700)
        assert peak("open_image(sys.argv[1])", tmp_path / name) < 64 * MEBIBYTE


# Names.


@pytest.mark.slow
def test_odd_names_of_files_through_folders_manifests_and_commands(
    tmp_path: Path, picture: bytes, model_file: Path
) -> None:
    root = tmp_path / "in put"
    for folder in COLOURS:
        (root / folder).mkdir(parents=True)
        for name in (*ODD_FILES, NOT_UTF8):
            (root / folder / name).write_bytes(picture)
    listed = ImageSet.from_path(root)
    assert Counter(path.name for path in listed.images) == dict.fromkeys((*ODD_FILES, NOT_UTF8), len(COLOURS))
    for path in listed.images:
        assert open_image(path).size == (40, 40)

    manifest = tmp_path / "list.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([root.name + f"/{label}/{name}", label] for label in COLOURS for name in ODD_FILES)
    assert [path.name for path in ImageSet.from_path(manifest).images] == [*ODD_FILES] * len(COLOURS)

    for data in (root, manifest):
        as_process("fit", data, "--out", tmp_path / "out.safetensors", *FIT, "--force")
    for command in (
        ["fit", "in put", "--out", "-m", *FIT],
        ["predict", model_file, "--csv", "-r.csv", "--", "-rf.png"],
    ):
        (tmp_path / "-rf.png").write_bytes(picture)
        as_process(*command, cwd=tmp_path)
    assert (tmp_path / "-m").is_file()

    names = [str(root / "red_brick" / name) for name in ODD_FILES]
    done = as_process("predict", model_file, *names, "--csv", tmp_path / "r.csv", "--json", tmp_path / "r.json")
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [row["path"] for row in told["predictions"]] == names
    assert done.stdout.splitlines()[len(names) + 2] == f"{len(names)} images:"
    assert "\x1b" not in done.stdout


def test_a_name_that_is_not_utf8_stays_readable_in_results(
    tmp_path: Path, picture: bytes, model_file: Path, sotglp: Command
) -> None:
    path = tmp_path / NOT_UTF8
    path.write_bytes(picture)
    assert r"caf\udce9.png  " in sotglp("predict", model_file, path).stdout
    sotglp("predict", model_file, path, "--csv", tmp_path / "r.csv", "--json", tmp_path / "r.json")
    # JSON gives the very name back, and the table says it in letters.
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert os.fsencode(told["predictions"][0]["path"]) == os.fsencode(path)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"].endswith(r"caf\udce9.png") for row in csv.DictReader(file)] == [True]


@pytest.mark.parametrize("command", ["fit", "fit --out", "evaluate", "predict", "info"])
def test_a_name_that_no_file_can_have_is_one_sentence(
    tmp_path: Path, model_file: Path, command: str, sotglp: Command
) -> None:
    name = tmp_path / ("x" * 300)
    arguments = {
        "fit": [name, "--out", tmp_path / "m", *FIT],
        "fit --out": [tmp_path, "--out", name, *FIT],
        "evaluate": [model_file, name],
        "predict": [model_file, name],
        "info": [name],
    }[command]
    done = sotglp(command.split()[0], *arguments, code=2)
    assert len(done.stderr.splitlines()) == 1
    assert str(name) in done.stderr


# What is no file, and links.


def test_links_that_loop_or_lead_nowhere(tmp_path: Path, picture: bytes) -> None:
    root = tmp_path / "root"
    for label in COLOURS:
        (root / label).mkdir(parents=True)
        (root / label / "0.png").write_bytes(picture)
    loops = {"here": ".", "root": "../../root", "self.png": "self.png", "a.png": "b.png", "b.png": "a.png"}
    for name, aim in {**loops, "gone.png": "nowhere.png"}.items():
        (root / "red_brick" / name).symlink_to(aim)
    (root / "up").symlink_to("../root")
    with pytest.warns(UserWarning, match="without images are ignored: up"):
        listed = ImageSet.from_path(root)
    broken = ["a.png", "b.png", "gone.png", "self.png"]
    assert [path.name for path in listed.images] == ["0.png", "0.png", "0.png", *broken]
    unreadable: list[UnreadableImageError] = []
    encode(listed, unreadable)
    assert [Path(error.source).name for error in unreadable] == broken


def encode(images: ImageSet, unreadable: list[UnreadableImageError]) -> list[torch.Tensor]:
    backbone = Backbone.from_open_clip(tiny_clip())
    views = Views(backbone, images, backbone.preprocess, precision="fp32")
    batches = views.encode_batches(in_order(len(images)), unreadable=unreadable)
    return [encoded.image_features for _, encoded in batches]


@pytest.mark.parametrize("device", ["pipe", "/dev/zero", "/dev/tty"])
def test_pipes_and_devices_named_like_images_are_refused_unopened(tmp_path: Path, device: str) -> None:
    root = make_class_folders(tmp_path / "train", per_class=1)
    endless = root / "red_brick" / "endless.jpg"
    if device == "pipe":
        os.mkfifo(endless)
    else:
        endless.symlink_to(device)
    for read in (open_image, content_digest):
        with pytest.raises(UnreadableImageError, match="it is a pipe, a socket or a device"):
            read(endless)
    unreadable: list[UnreadableImageError] = []
    encode(ImageSet.from_path(root), unreadable)
    assert [error.source for error in unreadable] == [str(endless)]


@pytest.mark.slow
def test_commands_do_not_wait_for_pipes(tmp_path: Path, model_file: Path) -> None:
    root = make_class_folders(tmp_path / "train", per_class=2)
    pipes = [root / "red_brick" / "endless.jpg", *(tmp_path / name for name in ("a.csv", "a.parquet", "a.yaml"))]
    for pipe in pipes:
        os.mkfifo(pipe)
    done = as_process("predict", model_file, root, "--skip-unreadable", "--workers", 1)
    assert done.stdout.splitlines()[8] == "6 images:"
    assert "endless.jpg" in done.stderr
    for data, preset in ((root, "folder"), (pipes[1], "folder"), (pipes[2], "folder"), (root, pipes[3])):
        done = as_process("fit", data, "--out", tmp_path / "m", *FIT, "--preset", preset, code=2)
        assert len(done.stderr.splitlines()) == 1


# Many classes, few images, odd class names.


def test_five_thousand_classes_are_read_and_drawn_from(tmp_path: Path) -> None:
    root = tmp_path / "train"
    for number in range(5000):
        (root / f"class {number:04}").mkdir(parents=True)
        for image in range(2):
            (root / f"class {number:04}" / f"{image}.png").touch()
    images = ImageSet.from_path(root)
    assert len(images.classes) == 5000
    labels = [*(images.labels or ()), *["class 0000"] * 1000]
    drawn = draw_shots(labels, 1, seed=1)
    assert Counter(labels[index] for index in drawn) == dict.fromkeys(images.classes, 1)

    manifest = tmp_path / "list.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in images.images if isinstance(path, Path)]
    manifest.write_text("\n".join(["path,label", *rows]))
    listed = ImageSet.from_path(manifest)
    assert (listed.images, listed.labels) == (images.images, images.labels)


@pytest.mark.slow
def test_text_features_of_two_thousand_classes_take_bounded_memory() -> None:
    script = (
        "import resource, torch, sotglp\n"
        "model = sotglp.SOTGLP(sotglp.Backbone.load('tiny'), [f'class number {k}' for k in range(2000)])\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "with torch.no_grad(): features = model.encode_text()\n"
        "assert features.local.shape[:2] == (2000, 4)\n"
        "print(used() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 1024 * MEBIBYTE


ODD_CLASSES = (
    "!?",
    "-",
    "--force",
    "\N{DOG FACE}",
    "名前",
    "a\tb",
    "=1+1",
    "two\nlines",
    "émeu",
    "[red]x",
)


def test_odd_class_names_are_learned_and_predicted(tmp_path: Path, sotglp: Command) -> None:
    rng = np.random.default_rng(0)
    for index, label in enumerate(ODD_CLASSES):
        (tmp_path / "train" / label).mkdir(parents=True)
        coloured_image(rng, (20 * index, 100, 200 - 15 * index)).save(tmp_path / "train" / label / "0.png")
    out = tmp_path / "m.safetensors"
    sotglp("fit", tmp_path / "train", "--out", out, *FIT)
    assert json.loads(sotglp("info", out, "--json", "-").stdout)["classes"] == sorted(ODD_CLASSES)
    done = sotglp("predict", out, tmp_path / "train", "--json", tmp_path / "r.json")
    assert done.stdout.splitlines()[len(ODD_CLASSES) + 2] == f"{len(ODD_CLASSES)} images:"
    for row in json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["predictions"]:
        assert set(row["probabilities"]) == set(ODD_CLASSES)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat", "word " * 300], "tokens, but the text tower allows"),
        (["cat", "w" * 1_000_000], "has 1000000 characters: shorten it"),
        (["sea_lion", "sea lion"], "give the same prompt"),
        (["Cat", "cat"], "give the same prompt"),
        (["caf\u00e9", "cafe\u0301"], "give the same prompt"),
        (["cat", "___"], "has no text for a prompt"),
        (["cat"], "needs at least two classes"),
    ],
)
def test_class_names_that_cannot_be_told_apart_or_said(tiny_backbone: Backbone, labels: list[str], words: str) -> None:
    with pytest.raises(SotglpError, match=words) as caught:
        SOTGLP(tiny_backbone, labels)
    assert len(str(caught.value)) < 1000


def test_a_class_folder_whose_name_is_not_utf8_is_refused(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("cat", NOT_UTF8.removesuffix(".png")):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "0.png").write_bytes(picture)
    assert "isn't UTF-8" in fails(capsys, monkeypatch, "fit", tmp_path / "train", "--out", tmp_path / "m", *FIT)
