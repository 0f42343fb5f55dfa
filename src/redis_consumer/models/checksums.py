"""Checks that files in a cache are unchanged, by their SHA-256."""

from __future__ import annotations

from pathlib import Path

from redis_consumer.digest import file_digest

SUMS_FILE = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of each file of a folder into a file there, in the format of the command ``sha256sum``."""
    lines = [f"{file_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / SUMS_FILE).write_text("".join(lines))


def is_intact(folder: Path) -> bool:
    """Whether all files that `write_sums` listed exist unchanged; False for a folder without a list."""
    try:
        lines = (folder / SUMS_FILE).read_text().splitlines()
        noted = [line.partition("  ") for line in lines]
        return bool(noted) and all(file_digest(folder / name) == digest for digest, _, name in noted)
    except (OSError, UnicodeDecodeError):
        return False
