"""Records what happened to each job in one file, which is lost with no Redis."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Note = dict[str, Any]


class Ledger:
    """Appends notes to a file that several processes share; a line is written whole or not at all.

    Args:
        path: the file; made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, event: str, **details: Any) -> None:
        """Write one line, with the moment (s, the machine's monotonic clock) and this process."""
        line = {"at": round(time.monotonic(), 4), "event": event, "pid": os.getpid(), **details}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Reader:
    """Gives the notes of a ledger that are new since the last look."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""

    def new(self) -> list[Note]:
        """Notes in the order in which they were written."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def history(notes: Iterable[Note], job_id: str, last_lines: int) -> str:
    """What was noted about a job, and the faults while it was under way, one a line."""
    notes = list(notes)
    own = [note["at"] for note in notes if note.get("job") == job_id]
    if not own:
        return "  nothing was noted about it"
    first, last = min(own), max(own)
    lines = []
    for note in sorted(notes, key=lambda note: float(note["at"])):
        is_fault = note["event"] in ("fault", "slow") and first - 1 <= note["at"] <= last + 1
        if note.get("job") == job_id or is_fault:
            details = " ".join(f"{name}={text}" for name, text in note.items() if name not in ("at", "event", "job"))
            lines.append(f"  {note['at'] - first:9.3f} s  {note['event']:<10} {details}")
    omitted = [f"  ({len(lines) - last_lines} lines before)"] if len(lines) > last_lines else []
    return "\n".join(omitted + lines[-last_lines:])
