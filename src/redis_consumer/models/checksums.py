"""Are files in a cache still what was put there?"""

from __future__ import annotations

from pathlib import Path

from redis_consumer.digest import file_digest

SUMS_FILE = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Note the SHA-256 of each file of a folder in it, as the command ``sha256sum`` would."""
    lines = [f"{file_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / SUMS_FILE).write_text("".join(lines))


def is_intact(folder: Path) -> bool:
    """Whether all files that were noted are there, unchanged; a folder without notes isn't."""
    try:
        lines = (folder / SUMS_FILE).read_text().splitlines()
        noted = [line.partition("  ") for line in lines]
        return bool(noted) and all(file_digest(folder / name) == digest for digest, _, name in noted)
    except (OSError, UnicodeDecodeError):
        return False
