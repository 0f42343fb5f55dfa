"""Writes the outcome of a job's children: a table for scientists, and fields for other programs."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from redis_consumer.job import Job
from redis_consumer.text import cell, cut, decimal

COLUMNS = ("image", "status", "reason", "objects", "seconds")
#: Fields of children that their parent lists, joined by commas (contract, section 1.3).
LISTED = (
    "download_time", "prediction_time", "postprocess_time", "upload_time", "total_time", "predict_retries",
)  # fmt: skip
#: Values that a parent lists of each such field, spread over its children.
MAX_LISTED = 1000
#: Bytes of a field with keys or reasons of children.
MAX_FIELD_BYTES = 1 << 16
_MAX_REASON = 300


class Summary:
    """Takes the children one by one; nothing of one is kept that doesn't go into a field of limited size.

    Args:
        path: of the table, a CSV file.
        total: children that will come.
    """

    def __init__(self, path: str | os.PathLike[str], total: int) -> None:
        self.done = self.failed = 0
        self.first_reason = ""
        self._every = -(-total // MAX_LISTED) or 1
        self._lists: dict[str, list[str]] = {name: [] for name in LISTED}
        self._failures = _Bounded("&")
        self._keys = {"children:done": _Bounded(","), "children:failed": _Bounded(",")}
        self._file = open(path, "w", newline="", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by exit
        # In quotes, no text begins a cell in its middle where a spreadsheet separates cells by semicolons.
        self._table = csv.writer(self._file, quoting=csv.QUOTE_ALL)
        self._table.writerow(COLUMNS)

    def __enter__(self) -> Summary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the table."""
        self._file.close()

    def add_done(self, child: Job) -> None:
        """Take a child that has its result."""
        if self.done % self._every == 0:
            for name in LISTED:
                text = child.get(name).strip()
                with suppress(ValueError):  # another producer's child may hold anything
                    decimal(text)
                    self._lists[name].append(text)
        self.done += 1
        self._keys["children:done"].add(child.id)
        self._add_row(child, "done", "")

    def add_failed(self, child: Job, reason: str, name: str) -> None:
        """Take a child that has none.

        Args:
            child: which one.
            reason: why, on one line.
            name: of its input, for people.
        """
        self.failed += 1
        self.first_reason = self.first_reason or cut(f"{name}: {reason}")
        self._keys["children:failed"].add(child.id)
        self._failures.add(urlencode({child.id: cut(reason, _MAX_REASON)}, errors="replace"))
        self._add_row(child, "failed", reason, name)

    def add_skipped(self, name: str, reason: str) -> None:
        """Take a file that no child was made for."""
        self._write(name, "skipped", reason, "", "")

    def _add_row(self, child: Job, status: str, reason: str, name: str = "") -> None:
        image = name or child.get("original_name") or child.id
        self._write(image, status, reason, child.get("objects"), child.get("total_time"))

    def _write(self, *texts: str) -> None:
        self._table.writerow(map(cell, texts))

    def fields(self) -> dict[str, Any]:
        """Fields for the parent: the lists, ``failures`` and ``children:…``; each of limited size."""
        failures = self._failures
        if failures.left_out:
            # In the place of one key, so that every reader of the pairs shows it.
            failures.parts.append(urlencode({"more": f"{failures.left_out} others, see summary.csv"}))
        keys = {name: "" if bounded.left_out else bounded.text for name, bounded in self._keys.items()}
        lists = {name: ",".join(texts) for name, texts in self._lists.items() if texts}
        return {**lists, **keys, "failures": failures.text, "total_jobs": self.done + self.failed}


class _Bounded:
    """Texts that are joined as long as there is room for them."""

    def __init__(self, joint: str) -> None:
        self.parts: list[str] = []
        self.left_out = 0
        self._joint = joint
        self._room = MAX_FIELD_BYTES

    def add(self, part: str) -> None:
        if self.left_out or len(part) >= self._room:
            self.left_out += 1
        else:
            self._room -= len(part) + 1
            self.parts.append(part)

    @property
    def text(self) -> str:
        return self._joint.join(self.parts)
