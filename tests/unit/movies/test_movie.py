"""What of a file is time, whatever its axes and format."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.job import Job
from redis_consumer.movies.movie import open_movies
from redis_consumer.options import ArchiveLimits, ImageLimits, MovieLimits
from support import ome_zarr

LIMITS = MovieLimits(ImageLimits(), ArchiveLimits(), 10**9)
RNG = np.random.default_rng(1)
TZYX = RNG.integers(0, 255, (4, 2, 16, 24), np.uint8)


def frames_of(path: Path, **fields: str) -> Any:
    """All frames of the movie in a file."""
    job = Job("j", {"input_file_name": f"uploads/{path.name}", **fields})
    (path.parent / "unpacked").mkdir(exist_ok=True)
    with open_movies(job, path, path.parent / "unpacked", LIMITS) as [movie]:
        assert movie.shape[1:] == (16, 24)
        return np.stack(list(movie.images()))


def write(folder: Path, array: Any, axes: str = "") -> Path:
    options: dict[str, Any] = {"imagej": True, "metadata": {"axes": axes}} if axes else {"metadata": None}
    tifffile.imwrite(folder / "a.tif", array, photometric="minisblack", **options)
    return folder / "a.tif"


@pytest.mark.parametrize(
    ("array", "axes", "fields", "wanted"),
    [
        (TZYX, "TZYX", {"z": "max"}, TZYX.max(axis=1)),
        (TZYX, "TZYX", {"z": "1"}, TZYX[:, 1]),
        (TZYX, "TCYX", {}, TZYX[:, 0]),
        (TZYX, "TCYX", {"channels": "1"}, TZYX[:, 1]),
        (TZYX[:, 0], "TYX", {}, TZYX[:, 0]),
        (TZYX[:, 0], "TYX", {"z": "max"}, TZYX[:, 0]),
        (TZYX[:, 0], "ZYX", {"z": "max"}, TZYX[:, :1].max(axis=0)),
        (TZYX[:, 0], "ZYX", {"dimension_order": "TYX"}, TZYX[:, 0]),
        (TZYX[:3, 0], "CYX", {}, TZYX[:1, 0]),
        (TZYX[:3, 0], "CYX", {"channels": "2"}, TZYX[2:3, 0]),
        (TZYX[0, 0], "YX", {}, TZYX[:1, 0]),
        (TZYX[:, 0], "", {}, TZYX[:, 0]),
        (TZYX[:3, 0], "", {"dimension_order": "BXY"}, TZYX[:3, 0]),
    ],
)
def test_t_is_time_and_nothing_else(tmp_path: Path, array: Any, axes: str, fields: dict[str, str], wanted: Any) -> None:
    np.testing.assert_array_equal(frames_of(write(tmp_path, array, axes), **fields), wanted)


@pytest.mark.parametrize(
    ("axes", "array", "fields", "message"),
    [
        ("TZYX", TZYX, {}, r"has planes along Z, which are not time; give field z: max, mean or the number of a plane"),
        ("TZYX", TZYX, {"z": "link"}, "has planes along Z"),
        ("ZYX", TZYX[:, 0], {}, "or dimension_order TYX if they are time points"),
        ("TZYX", TZYX, {"z": "2"}, "there is no plane 2"),
    ],
)
def test_planes_are_never_time(tmp_path: Path, axes: str, array: Any, fields: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        frames_of(write(tmp_path, array, axes), **fields)


@pytest.mark.parametrize("count", [3, 70])
def test_an_npy_of_three_axes_is_a_movie_of_any_length(tmp_path: Path, count: int) -> None:
    movie = RNG.integers(0, 255, (count, 16, 24), np.uint8)
    np.save(tmp_path / "a.npy", movie)
    np.testing.assert_array_equal(frames_of(tmp_path / "a.npy"), movie)


@pytest.mark.parametrize("axes", [1, 2])
def test_two_unnamed_axes_of_frames_are_refused(tmp_path: Path, axes: int) -> None:
    array = RNG.integers(0, 255, (6, 7, 16, 24)[2 - axes :], np.uint8)
    np.save(tmp_path / "a.npy", array)
    if axes == 1:
        assert frames_of(tmp_path / "a.npy").shape[0] == 7
    else:
        with pytest.raises(InvalidImage, match="has several frames along B and B, of which at most one can be time"):
            frames_of(tmp_path / "a.npy")


def test_frames_of_a_zip_may_be_stacks_that_are_projected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, stack in enumerate(TZYX):
            archive.write(write(tmp_path, stack, "ZYX"), f"t{number}.tif")
    np.testing.assert_array_equal(frames_of(tmp_path / "a.zip", z="max"), TZYX.max(axis=1))
    (tmp_path / "unpacked").rename(tmp_path / "before")
    with pytest.raises(InvalidImage, match=r"t0\.tif: has planes along Z"):
        frames_of(tmp_path / "a.zip")


@pytest.mark.parametrize("is_packed", [False, True])
def test_an_ome_zarr_is_a_movie(tmp_path: Path, is_packed: bool) -> None:
    pytest.importorskip("tensorstore")
    folder = ome_zarr.write(tmp_path / "a.zarr", TZYX, "tzyx")
    path = ome_zarr.zipped(folder, tmp_path / "a.zarr.zip") if is_packed else folder
    np.testing.assert_array_equal(frames_of(path, z="mean"), TZYX.astype(np.float32).mean(axis=1))
    with pytest.raises(InvalidImage, match="has planes along Z"):
        frames_of(path)


def test_the_channel_of_a_movie_is_one_with_signal(tmp_path: Path) -> None:
    """As in an image: not transmitted light, and of a colour the sample with signal; the job says which."""
    path = tmp_path / "a.ome.tif"
    names = {"Name": ["TL Brightfield", "GFP"]}
    tifffile.imwrite(path, TZYX, ome=True, metadata={"axes": "TCYX", "Channel": names}, photometric="minisblack")
    job = Job("j", {"input_file_name": f"uploads/{path.name}"})
    with open_movies(job, path, tmp_path, LIMITS) as [movie]:
        np.testing.assert_array_equal(np.stack(list(movie.images())), TZYX[:, 1])
        assert movie.fields["axes_read"] == "TCYX (4, 2, 16, 24), from the file"
        assert movie.fields["channels_read"].startswith("1 GFP, the first that does not show transmitted light")
        assert movie.channel == 1
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        for number, plane in enumerate(TZYX[:, 0]):
            colour = np.stack([np.zeros_like(plane), plane, np.zeros_like(plane)], axis=-1)
            tifffile.imwrite(tmp_path / "frame.tif", colour, photometric="rgb")
            archive.write(tmp_path / "frame.tif", f"{number}.tif")
    np.testing.assert_array_equal(frames_of(tmp_path / "f.zip"), TZYX[:, 0])


def test_a_job_says_that_the_shape_decided(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TZYX[:, 0])
    with open_movies(Job("j", {"input_file_name": "uploads/a.npy"}), tmp_path / "a.npy", tmp_path, LIMITS) as [movie]:
        assert movie.fields["axes_read"] == "TYX (4, 16, 24), from the shape"
