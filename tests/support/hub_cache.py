"""Files in a cache of the Hugging Face Hub, as its client lays them out."""

from __future__ import annotations

from pathlib import Path

COMMIT = "0" * 40


def cached_file(cache: Path, repository: str, name: str, content: bytes = b"weights") -> Path:
    """Put a file where the client keeps the one of that name at the head of a repository's main branch."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    file = folder / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
