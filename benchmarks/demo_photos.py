"""Choose the photographs that ship with the demo, and shrink them: `python benchmarks/demo_photos.py --data FOLDER`.

FOLDER holds ``grocery`` (train and test, a folder for each class), ``ood/other_things`` and ``ood/ATTRIBUTION.csv``.
The same files and the same Pillow give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
from pathlib import Path

from PIL import Image

SEED = 1
SHOTS = 16
TEST_PER_CLASS = 20
LONGEST_SIDE = 192
QUALITY = 75
MOST_BYTES = 3_000_000

LEFT_OUT = {"cameratrap_blank.jpg", "cameratrap_blank3.jpg", "skimage_coins.jpg", "skimage_ihc.jpg"}
"""Unknown photos that show nothing, or whose licence is only described as "no known copyright restrictions"."""

PARTS = {"train": SHOTS, "test": TEST_PER_CLASS}

NOTICE = """\
The photographs in this folder
==============================

train/, test/   Eight kinds of fruit and vegetables from GroceryStoreDataset by Marcus Klasson
                (https://github.com/marcusklasson/GroceryStoreDataset, commit fc80ba9).
                MIT licence: LICENSE in this folder.
unknown/        {n_unknown} photos of other things. ATTRIBUTION.csv has for each its source, author and licence.

Changes to all of them: a subset was chosen (seed {seed}), the photos were scaled down to at most {side} pixels and
encoded again as JPEG (quality {quality}) without metadata. `benchmarks/demo_photos.py` in the source repository of
sotglp makes this folder.

Licences in ATTRIBUTION.csv
---------------------------
MIT                     The text of LICENSE, with the copyright notice of the author that ATTRIBUTION.csv names.
CDLA-Permissive-1.0     https://cdla.dev/permissive-1-0/
CC0                     https://creativecommons.org/publicdomain/zero/1.0/
CC BY 2.0, CC BY 3.0    https://creativecommons.org/licenses/by/2.0/, https://creativecommons.org/licenses/by/3.0/
                        They come through the collection FELIX, which is published as CC BY-SA 4.0
                        (https://creativecommons.org/licenses/by-sa/4.0/); as shown here, under CC BY-SA 4.0 too.
public domain           Works of NASA and of SpaceX, as the source describes them.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ship"))
    parser.add_argument("--out", type=Path, default=Path("src/sotglp/demo/photos"))
    chosen = parser.parse_args()
    source, out = chosen.data, chosen.out
    shutil.rmtree(out, ignore_errors=True)
    for part, n_photos in PARTS.items():
        for folder in sorted((source / "grocery" / part).iterdir()):
            photos = sorted(folder.glob("*.jpg"))
            # A generator for each class: one more photo of a class leaves the other classes as they are.
            for photo in random.Random(f"{SEED} {part} {folder.name}").sample(photos, n_photos):
                shrink(photo, out / part / folder.name / photo.name)
    unknown = [path for path in sorted((source / "ood" / "other_things").glob("*.jpg")) if path.name not in LEFT_OUT]
    for photo in unknown:
        shrink(photo, out / "unknown" / photo.name)
    write_licences(source, out, {path.name for path in unknown})
    n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{len(list(out.rglob('*.jpg')))} photos, {n_bytes / 1e6:.2f} MB")
    if n_bytes > MOST_BYTES:
        raise SystemExit(f"the photos take {n_bytes} bytes, more than {MOST_BYTES}: choose fewer or a smaller quality")


def shrink(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as opened:
        photo = opened.convert("RGB")
    photo.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    photo.info = {}
    photo.save(target, "JPEG", quality=QUALITY, optimize=True)


def write_licences(source: Path, out: Path, unknown: set[str]) -> None:
    shutil.copyfile(source / "grocery" / "LICENSE", out / "LICENSE")
    with (source / "ood" / "ATTRIBUTION.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    kept = [row for row in rows if row[0] in unknown]
    if len(kept) != len(unknown):
        raise SystemExit("ATTRIBUTION.csv doesn't list all photos: add the missing ones")
    with (out / "ATTRIBUTION.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *kept])
    notice = NOTICE.format(n_unknown=len(unknown), seed=SEED, side=LONGEST_SIDE, quality=QUALITY)
    (out / "NOTICE").write_text(notice, encoding="utf-8")


if __name__ == "__main__":
    main()
