"""Measures how many image jobs a second one slot does with a model server that answers at once."""

from __future__ import annotations

import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.image_jobs import ImageWorker, Plane, image_worker, photograph
from benchmarks.model_server import run_model_server
from redis_consumer.archives import zip_files
from redis_consumer.images import write_channels

#: By the name in the figures: sides in pixels and jobs of a run.
IMAGES = {"512": ((512, 512), 200), "1080": ((1080, 1280), 60)}
RUNS = 3
TRIES = 11


def measure() -> dict[str, Any]:
    """Real worker of one slot, real Redis, local bucket, real gRPC server that gives back its tiles of 512 x 512 px.

    Image and result are float32 TIFFs of one channel whose values shrink as little as a network's; no functions.
    Medians of three runs.

    Returns:
        For 512 x 512 and 1080 x 1280 px: ``jobs_per_s``; ``stages_ms``, the job's own times, whose ``upload`` is
        writing, zipping and uploading; ``zip_ms``, the zip's part of it, and ``zip_labels_ms``, that of a label image
        of this size; as reference ``script_ms``, what a plain script takes that reads the image, writes it as float32
        and zips it, by tifffile, zipfile and their defaults.
    """
    figures: dict[str, Any] = {}
    with run_model_server(tile_ms=0) as server, image_worker(server) as worker:
        for name, (sides, jobs) in IMAGES.items():
            image = photograph(*sides)
            values = {**_run(worker, image, jobs), **_zips(image), "script_ms": _script_ms(image)}
            figures |= {f"{key}_{name}": value for key, value in values.items()}
    return figures


def _run(worker: ImageWorker, image: Plane, jobs: int) -> dict[str, Any]:
    worker.run(image, jobs // 10)
    runs = sorted((worker.run(image, jobs) for _ in range(RUNS)), key=lambda run: run.jobs_per_s)
    middle = runs[RUNS // 2]
    return {"jobs_per_s": round(middle.jobs_per_s, 1), "stages_ms": middle.stages_ms}


def _zips(image: Plane) -> dict[str, float]:
    from scipy import ndimage

    labels, _ = ndimage.label(image > 1.5 * np.median(image))
    return {"zip_ms": _zip_ms(image), "zip_labels_ms": _zip_ms(labels)}


def _zip_ms(result: npt.NDArray[Any]) -> float:
    with tempfile.TemporaryDirectory() as name:
        files = write_channels(result, Path(name, "result"))
        return _median_ms(lambda number: zip_files(files, name, name=f"{number}.zip"))


def _script_ms(image: Plane) -> float:
    from tifffile import imread, imwrite

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        imwrite(folder / "image.tif", image)

        def script(number: int) -> None:
            imwrite(folder / f"{number}.tif", imread(folder / "image.tif").astype(np.float32))
            with zipfile.ZipFile(folder / f"{number}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(folder / f"{number}.tif", "result.tif")

        return _median_ms(script)


def _median_ms(run: Callable[[int], object]) -> float:
    times_s = []
    for number in range(TRIES):
        started = time.perf_counter()
        run(number)
        times_s.append(time.perf_counter() - started)
    return round(1e3 * statistics.median(times_s), 2)
