"""Finds the control groups that limit this process (cgroup v1 and v2)."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_TABLE = Path("/proc/self/cgroup")


def folders(controller: str, *, root: Path = ROOT, table: Path = _TABLE) -> list[Path]:
    """List the folders that can hold limits of this process: of its own group and of all enclosing groups.

    Args:
        controller: ``cpu`` or ``memory``.
        root: where the kernel shows the groups; a container often sees its own group there.
        table: where the kernel says which groups this process is in.
    """
    found = {root: None, root / controller: None}
    for line in _lines(table):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Only the older version has a tree for each controller.
        base = root / controller if controllers else root
        # The name of a group outside of the container's view contains "..".
        group = base / path.replace("..", "").lstrip("/")
        found |= dict.fromkeys(folder for folder in (group, *group.parents) if folder.is_relative_to(base))
    return [folder for folder in found if folder.is_dir()]


def _lines(table: Path) -> list[str]:
    try:
        return [line for line in table.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        return []
