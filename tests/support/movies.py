"""Simulated movies as files and as jobs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from benchmarks.movies import Movie, Scene, simulate

Array = npt.NDArray[Any]

#: A few large, bright cells that divide now and then; the shipped model needs some 0.1 s for a frame.
SMALL = Scene(cells=8, frames=8, side_px=160, diameter_px=24.0, cycle=10.0, arrivals=0.1, step=0.1, noise=0.05, seed=5)


def small_movie() -> Movie:
    """A movie for end-to-end tests."""
    return simulate(SMALL)


def write_tiff(movie: Movie, path: Path) -> None:
    """Write the images of a movie as one TIFF (T, Y, X)."""
    frames = np.stack([movie.image(number) for number in range(movie.scene.frames)])
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, frames, photometric="minisblack", metadata={"axes": "TYX"})


def write_zip(movie: Movie, path: Path) -> None:
    """Write the images of a movie as a zip of one TIFF a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(movie.scene.frames):
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, movie.image(number))
            archive.writestr(f"frames/t{number}.tif", buffer.getvalue())


def true_labels(movie: Movie) -> list[Array]:
    """The true label images, frame by frame."""
    return [movie.labels(number) for number in range(movie.scene.frames)]
