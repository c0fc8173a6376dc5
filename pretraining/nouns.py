"""Write the nouns that the OOD score neglabel compares images with: frequent names of things, from WordNet 3.0.

Run ``python -m pretraining.nouns``; it needs Debian's package wordnet-base.
"""

from __future__ import annotations

import argparse
import gzip
import re
from pathlib import Path

from pretraining.photo.wordnet import WordNet

OUT = Path(__file__).parent.parent / "src" / "sotglp" / "scoring" / "nouns" / "nouns.txt.gz"

PLAIN = re.compile(r"[a-z][a-z'-]+( [a-z][a-z'-]+)?")
"""One or two words in lower case, which leaves out people, places and Latin names of families."""


def frequent_nouns(index: Path) -> set[str]:
    """Return the nouns of ``index.noun`` that occur in the texts whose senses WordNet counts."""
    found = set()
    for line in index.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):  # the licence
            lemma, _, _, n_pointers, *rest = line.split()
            n_counted = int(rest[int(n_pointers) + 1])
            if n_counted:
                found.add(lemma.replace("_", " "))
    return found


def nouns_of(folder: Path) -> list[str]:
    """Return the frequent nouns that are the first name of something that can be photographed, sorted."""
    wordnet, frequent = WordNet.read(folder), frequent_nouns(folder / "index.noun")
    names = {wordnet.lemmas[offset][0] for offset in wordnet.physical()}
    return sorted(name for name in names & frequent if PLAIN.fullmatch(name))


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of data.noun")
    nouns = nouns_of(parser.parse_args().wordnet)
    OUT.write_bytes(gzip.compress("".join(f"{noun}\n" for noun in nouns).encode(), 9, mtime=0))
    print(f"{OUT}: {len(nouns)} nouns, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
