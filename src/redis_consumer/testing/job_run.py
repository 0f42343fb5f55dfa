"""The result of a job that ran in a test."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.errors import InvalidImage
from redis_consumer.job import Job

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

_NUMBER = re.compile(r"\d+(\.\d*)?")


@dataclass(frozen=True)
class JobRun:
    """A job at the end of its run.

    Attributes:
        job: its key, the fields of its hash and the attempt.
        statuses: all its statuses, in order; ``new`` is the first.
        outcome: how its claim ended.
        result: bytes of the object that ``output_file_name`` names, empty if there is none.
        elapsed_s: duration in seconds, including its children.
        children: runs of child jobs in order; for a folder, the runs of its files.
    """

    job: Job
    statuses: tuple[str, ...]
    outcome: Outcome
    result: bytes = field(default=b"", repr=False)
    elapsed_s: float = 0.0
    children: tuple[JobRun, ...] = ()

    @property
    def status(self) -> str:
        """The last status, ``done`` or ``failed``. It is another one if the job was given back or lost."""
        return self.job.status

    @property
    def reason(self) -> str:
        """Why it failed, else empty. The last line has the form ``ErrorType: what is wrong``."""
        return self.job.get("reason")

    @property
    def fields(self) -> Mapping[str, str]:
        """All fields of its hash."""
        return self.job.fields

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of each stage, from the fields that end in ``_time`` and contain a number."""
        texts = {name: text for name, text in self.fields.items() if name.endswith("_time")}
        return {name: float(text) for name, text in texts.items() if _NUMBER.fullmatch(text)}

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Bytes of each file in the result, by name. If the result is not a zip, the result itself."""
        if not zipfile.is_zipfile(io.BytesIO(self.result)):
            name = PurePosixPath(self.job.get("output_file_name")).name
            return {name: self.result} if name and self.result else {}
        with zipfile.ZipFile(io.BytesIO(self.result)) as archive:
            return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}

    @cached_property
    def outputs(self) -> dict[str, Array]:
        """Each image in the result as an array with its own dtype and axes. Pixels may be NaN."""
        read = {name: _read(name, content) for name, content in self.files.items()}
        return {name: array for name, array in read.items() if array is not None}

    def save(self, folder: str | Path) -> list[Path]:
        """Write the files of the result to a folder and return their paths.

        Raises:
            ValueError: the name of a file leads out of the folder.
        """
        root = Path(folder).resolve()
        paths = [(root / name).resolve() for name in self.files]
        for path, content in zip(paths, self.files.values(), strict=True):
            if root not in path.parents:
                raise ValueError(f"{path.name}: is outside of {root}; use plain names for the files of the result")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return paths


def _read(name: str, content: bytes) -> Any:
    from redis_consumer.images.reading import decode_image

    with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
        path = Path(folder, PurePosixPath(name).name)
        path.write_bytes(content)
        try:
            return decode_image(path)
        except InvalidImage:
            return None
