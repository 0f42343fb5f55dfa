"""Defines the jobs with children that chaos sends, and the right result of each."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from redis_consumer.tracking import Linker, Tracking
from support.movies import Scene, shuffled, simulate

#: Queue of the children of all kinds, and their model, which multiplies.
IMAGES = "images"
MODEL, FACTOR = ("Scaling", "1"), 2.0


class Kind(Protocol):
    """A kind of job with children.

    Attributes:
        name: in the figures.
        queue: of the parents.
        consumer: its class in `chaos.slow_consumers`.
        input: name of the file.
        children: of each job.
    """

    name: str
    queue: str
    consumer: str
    input: str
    children: int

    def write(self, folder: Path) -> None:
        """Write the input."""

    def is_child(self, key: str) -> bool:
        """Return whether a job in the queue of images belongs to this kind."""

    def is_right(self, archive: zipfile.ZipFile, fields: Mapping[str, str]) -> bool:
        """Return whether this is the result that every job must have."""


class Archives:
    """Zips of images, with one file that isn't an image."""

    name, queue, consumer, input = "zip", "images-zip", "SlowZip", "plate.zip"
    children = 12
    bad = 7

    def write(self, folder: Path) -> None:
        """See `Kind`."""
        with zipfile.ZipFile(folder / self.input, "w") as archive:
            for number in range(self.children):
                buffer = io.BytesIO()
                np.save(buffer, np.full((16, 16), number, np.float32))
                archive.writestr(
                    f"well {number % 3}/{number}.npy", b"none" if number == self.bad else buffer.getvalue()
                )

    def is_child(self, key: str) -> bool:
        """See `Kind`."""
        return key.endswith(".npy", 0, key.rindex(":"))

    def is_right(self, archive: zipfile.ZipFile, fields: Mapping[str, str]) -> bool:
        """Return whether each image but one is there once, and that one is named."""
        good = [number for number in range(self.children) if number != self.bad]
        names = [f"well {number % 3}/{number}_feature_0.tif" for number in good]
        failures = fields.get("failures", "")
        is_told = failures.count("=") == 1 and f"{self.bad}.npy" in failures
        return sorted(archive.namelist()) == sorted([*names, "summary.csv"]) and is_told


class Movies:
    """Movies whose images are their own label images, so that the tracks are known to the pixel."""

    name, queue, consumer, input = "tracking", "movies", "SlowTracking", "cells.tif"
    #: Of 16 frames at most.
    children = 3
    scene = Scene(cells=6, frames=40, side_px=64, diameter_px=12.0, cycle=20.0, step=0.1, seed=6)

    @cached_property
    def _frames(self) -> list[Any]:
        movie = simulate(self.scene)
        return [shuffled(movie.labels(number), number) for number in range(self.scene.frames)]

    @cached_property
    def _expected(self) -> tuple[Tracking, Any]:
        linker = Linker()
        labels = [(frame * FACTOR).astype(np.uint32) for frame in self._frames]
        for frame in labels:
            linker.add(frame)
        tracking = linker.finish()
        return tracking, np.stack([tracking.relabel(number, frame) for number, frame in enumerate(labels)])

    def write(self, folder: Path) -> None:
        """See `Kind`."""
        from tifffile import imwrite

        frames = np.stack(self._frames).astype(np.uint16)
        imwrite(folder / self.input, frames, photometric="minisblack", metadata={"axes": "TYX"})

    def is_child(self, key: str) -> bool:
        """See `Kind`."""
        return "-tracking-frame-" in key

    def is_right(self, archive: zipfile.ZipFile, fields: Mapping[str, str]) -> bool:
        """Return whether each pixel has the label of its cell, and the lineage lists all tracks and divisions."""
        from tifffile import imread

        tracking, expected = self._expected
        if sorted(archive.namelist()) != ["cells_feature_0.tif", "lineage.json"]:
            return False
        labels = imread(io.BytesIO(archive.read("cells_feature_0.tif")))
        lineage = json.loads(archive.read("lineage.json"))
        parents = {track["label"]: track["parent"] for track in lineage.values()}
        wanted = {track.label: track.parent for track in tracking.tracks}
        return labels.shape == expected.shape and bool((labels == expected).all()) and parents == wanted
