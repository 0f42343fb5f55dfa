"""Are files in a cache still what was put there?"""

from __future__ import annotations

import hashlib
from pathlib import Path

SUMS_FILE = "SHA256SUMS"

_CHUNK_BYTES = 2**20


def write_sums(folder: Path) -> None:
    """Note the SHA-256 of each file of a folder in it, as the command ``sha256sum`` would."""
    lines = [f"{_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / SUMS_FILE).write_text("".join(lines))


def is_intact(folder: Path) -> bool:
    """Whether all files that were noted are there, unchanged; a folder without notes isn't."""
    try:
        lines = (folder / SUMS_FILE).read_text().splitlines()
        noted = [line.partition("  ") for line in lines]
        return bool(noted) and all(_digest(folder / name) == digest for digest, _, name in noted)
    except (OSError, UnicodeDecodeError):
        return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
