"""Defines what a client gets for an image: labels, a table of the cells, and the quality."""

from __future__ import annotations

import csv
import html
import io
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_consumer.errors import PermanentError
from redis_consumer.text import decimal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FEATURE = re.compile(r"_feature_(\d+)\.tif$", re.ASCII)
_TABLE = "_cells.csv"


@dataclass(frozen=True)
class ImageResult:
    """The result of one image.

    Attributes:
        name: of the file.
        job_id: of its job.
        path: the result zip on disk.
        fields: what the job says, such as ``objects``, ``quality``, ``warning``, ``axes_read`` and ``scale``.
    """

    name: str
    job_id: str
    path: Path
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def all_labels(self) -> list[npt.NDArray[np.uint32]]:
        """The label images of all features, each (Y, X), or with leading axes for frames and planes; 0 is background.

        Raises:
            PermanentError: the result has no label images that are TIFFs.
        """
        import tifffile

        with zipfile.ZipFile(self.path) as archive:
            found = {int(match[1]): name for name in archive.namelist() if (match := _FEATURE.search(name))}
            if not found:
                raise PermanentError(f"{self.name}: its result has no label images; see the files of {self.path}")
            return [
                tifffile.imread(io.BytesIO(archive.read(found[number]))).astype("uint32") for number in sorted(found)
            ]

    @property
    def labels(self) -> npt.NDArray[np.uint32]:
        """The first of `all_labels`: cells, or what the model finds."""
        return self.all_labels[0]

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """The table of cells by column, as `pandas.DataFrame` takes it. Numbers are floats; empty without a table."""
        with zipfile.ZipFile(self.path) as archive:
            name = next((name for name in archive.namelist() if name.endswith(_TABLE)), None)
            if name is None:
                return {}
            with archive.open(name) as file:
                header, *rows = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))
        columns = zip(*rows, strict=True) if rows else ([] for _ in header)
        return {title: [_value(text) for text in column] for title, column in zip(header, columns, strict=True)}

    @property
    def objects(self) -> int | None:
        """Number of objects; None if the job doesn't say."""
        text = self.fields.get("objects") or ""
        return int(text) if text.isdecimal() else None

    @property
    def quality(self) -> float | None:
        """Share of objects whose size, shape and confidence are usual, 0..1; None if it is unknown."""
        found = _value(self.fields.get("quality") or "")
        return found if isinstance(found, float) else None

    @property
    def warning(self) -> str:
        """What the worker warns of; empty for nothing."""
        return self.fields.get("warning") or ""

    def save(self, folder: Path | str) -> Path:
        """Copy the result zip into a folder, which is made if it is missing. Return the path of the copy.

        Raises:
            OSError: it can't be written.
        """
        target = Path(folder) / self.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path, target)
        return target

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        facts = {
            "objects": "" if self.objects is None else str(self.objects),
            "quality": "" if self.quality is None else f"{self.quality:.0%}",
            "read as": self.fields.get("axes_read") or "",
            "scale": self.fields.get("scale") or "",
            "warning": self.warning,
        }
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(text)}</td></tr>"
            for name, text in facts.items()
            if text
        )
        return f"<b>{html.escape(self.name)}</b><table>{rows}</table>"


def _value(text: str) -> Any:
    try:
        return decimal(text)
    except ValueError:
        return text
