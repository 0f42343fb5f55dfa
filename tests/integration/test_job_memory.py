"""Jobs other than images in memory hold little too, and one that needs more than a job may fails early."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from redis_consumer import testing
from redis_consumer.consumers import ImageFileConsumer, TrackingConsumer
from redis_consumer.processing.whole_image import MAX_SAMPLE_PX
from redis_consumer.segmentation.large_image import BLOCK_BYTES

Array = npt.NDArray[Any]

#: Runs a small job, then a large one, and prints by how many bytes the second one raised the peak.
MEASURE = """
import resource, sys
from redis_consumer import testing
from redis_consumer.consumers import ImageFileConsumer, TrackingConsumer

kind, options = eval(sys.argv[3])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def run(path):
    done = testing.run(kind, path, **options)
    assert done.status == "done", done.reason

run(sys.argv[1])
before = peak()
run(sys.argv[2])
print(peak() - before)
"""


def grown(small: Path, large: Path, how: str) -> int:
    command = [sys.executable, "-c", MEASURE, str(small), str(large), how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write_track_file(path: Path, raw: Array, labels: Array) -> None:
    # Gzipped: the test's own bucket holds the file in memory.
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, array in (("raw.npy", raw), ("tracked.npy", labels)):
            content = io.BytesIO()
            np.save(content, array[..., np.newaxis])
            entry = tarfile.TarInfo(name)
            entry.size = content.tell()
            content.seek(0)
            archive.addfile(entry, content)


def a_tiff(folder: Path) -> Path:
    tifffile.imwrite(folder / "movie.tif", np.zeros((3, 256, 256), np.uint8), photometric="minisblack")
    return folder / "movie.tif"


def a_zip(folder: Path) -> Path:
    tifffile.imwrite(folder / "t0.tif", np.zeros((8, 128, 128), np.uint8), metadata={"axes": "CYX"})
    with zipfile.ZipFile(folder / "movie.zip", "w") as archive:
        archive.write(folder / "t0.tif", "t0.tif")
    return folder / "movie.zip"


def a_track_file(folder: Path) -> Path:
    write_track_file(folder / "movie.trk", np.zeros((8, 128, 128), np.float32), np.zeros((8, 128, 128), np.int64))
    return folder / "movie.trk"


@pytest.mark.parametrize("write", [a_tiff, a_zip, a_track_file])
def test_a_movie_over_max_job_mb_fails_before_its_pixels_are_read(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_JOB_MB", "1")
    done = testing.run(TrackingConsumer, write(tmp_path))
    assert done.status == "failed"
    assert "MB of memory, allowed are 1 MB (MAX_JOB_MB)" in done.reason
    assert "for what is read at once" in done.reason


def test_tracked_frames_wait_on_disk(tmp_path: Path) -> None:
    side_px, frames = 1024, 40
    labels = np.zeros((frames, side_px, side_px), np.uint8)
    labels[:, 100:200, 100:200] = 1
    for name, count in (("small", 2), ("large", frames)):
        write_track_file(tmp_path / f"{name}.trk", labels[:count], labels[:count])
    more = grown(tmp_path / "small.trk", tmp_path / "large.trk", "(TrackingConsumer, {})")
    # The file is held, 2 bytes a pixel; the tracks would take 4 more.
    assert more < 3 * labels.size


@pytest.fixture
def many_channels(tmp_path: Path) -> Path:
    for name, side_px in (("small", 300), ("large", 1300)):
        image = np.zeros((48, side_px, side_px), np.uint8)
        image[:, 40:80, 40:80] = 200
        tifffile.imwrite(
            tmp_path / f"{name}.tif", image, photometric="minisblack", metadata={"axes": "CYX"}, tile=(128, 128)
        )
    return tmp_path


JOB = "(ImageFileConsumer, dict(model=lambda tiles: tiles[..., :1], scale='1', preprocess_function='normalize'))"


def test_a_block_with_many_channels_has_fewer_pixels(many_channels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_IMAGE_HEIGHT", "1024")
    monkeypatch.setenv("MAX_IMAGE_WIDTH", "1024")
    # As float32, all channels take 325 MB.
    assert grown(many_channels / "small.tif", many_channels / "large.tif", JOB) < 12 * (64 << 20)


def test_a_block_over_max_job_mb_fails_before_its_pixels_are_read(
    many_channels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"MAX_IMAGE_HEIGHT": "1024", "MAX_IMAGE_WIDTH": "1024", "MAX_JOB_MB": "500"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr("redis_consumer.images.windows.WindowedImage.read", lambda *_: pytest.fail("pixels were read"))
    done = testing.run(ImageFileConsumer, many_channels / "large.tif", model=lambda tiles: tiles, scale="1")
    assert done.status == "failed"
    assert "MB of memory, allowed are 500 MB (MAX_JOB_MB)" in done.reason
    assert "for a block with 48 channel(s)" in done.reason
    assert MAX_SAMPLE_PX * 48 * 4 > BLOCK_BYTES
