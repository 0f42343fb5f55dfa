"""Measures one large image: how long it takes, its memory, and how busy it keeps the model server."""

from __future__ import annotations

import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks import big_image
from benchmarks.model_server import run_model_server
from benchmarks.worker import connect, idle_worker
from redis_consumer.cli import embedded

#: Side and number of runs: a short run depends more on other load of the machine.
SIDES_PX = {4096: 3, 16384: 1}
HUGE_PX = 40_000
#: What a network of this size takes on a graphics card.
TILE_MS = 8.0
TIMEOUT_S = 7200.0
CARD = "[tile]\nsize_px = 512\noverlap_px = 64\n"
JOB = "predict:big.tif:1"


def measure(*, is_huge: bool = False) -> dict[str, Any]:
    """Run one job for each size through a real worker, against a real gRPC server in a process of its own.

    The model gives back what it gets, 8 ms a tile of 512 x 512 px. Sides of 4096 and 16384 px are done in memory, one
    float32 channel in and out, no functions.

    Args:
        is_huge: also 40,000 x 40,000 px, in windows: percentiles over the image, labels joined over all blocks.

    Returns:
        For each side in pixels, of 4096 the run of middle length among three: ``s`` (the whole job), ``predict_s``,
        ``peak_rss_mb`` of the slot, ``server_busy_pct`` from the first call to the last answer; as references
        ``image_mb``, ``idle_rss_mb`` and ``tile_ms``; in windows ``labels`` and the number of ``discs``, which must be
        the same.
    """
    figures = {}
    for side_px, runs in SIDES_PX.items():
        ordered = sorted((_run(side_px, is_in_windows=False) for _ in range(runs)), key=lambda run: float(run["s"]))
        figures[str(side_px)] = ordered[runs // 2]
    if is_huge:
        figures[str(HUGE_PX)] = _run(HUGE_PX, is_in_windows=True)
    return figures


def _run(side_px: int, *, is_in_windows: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, embedded.run_redis() as server, run_model_server(TILE_MS) as echo:
        folder, limit = Path(name), str(2048 if is_in_windows else side_px)
        bucket = folder / "bucket"
        (bucket / "models/Echo/1").mkdir(parents=True)
        (bucket / "models/Echo/1/card.toml").write_text(CARD)
        (bucket / "uploads").mkdir()
        write = big_image.write_tiles if is_in_windows else big_image.write_strips
        discs = write(bucket / "uploads/big.tif", side_px)
        variables = {
            "MODEL_SERVER": f"tfs://{echo.address}",
            "CONSUMER_TYPE": "benchmarks.big_consumer:BigConsumer",
            "MAX_IMAGE_HEIGHT": limit,
            "MAX_IMAGE_WIDTH": limit,
            "JOB_TIMEOUT": str(TIMEOUT_S),
            "TMPDIR": str(folder),
        }
        functions = {"preprocess_function": "percentile_normalize", "postprocess_function": "connected"}
        with idle_worker(server, folder, **variables) as (process, _):
            done = _job(connect(server), process, functions if is_in_windows else {})
        output = bucket / done.pop("output")
        references = {"image_mb": side_px**2 * 4 // 2**20, "tile_ms": TILE_MS}
        joined = {"labels": _labels(output), "discs": discs} if is_in_windows else {}
        return {**done, "server_busy_pct": echo.activity().busy_pct, **references, **joined}


def _job(client: Any, worker: psutil.Process, functions: dict[str, str]) -> dict[str, Any]:
    """Submit the job and watch the memory of the worker's largest process until it ends."""
    fields = {
        "original_name": "big.tif",
        "input_file_name": "uploads/big.tif",
        "model_name": "Echo",
        "model_version": "1",
    }
    idle_rss = peak_rss = _rss(worker)
    client.hset(JOB, mapping={"status": "new", "scale": "1", **fields, **functions})
    started = time.perf_counter()
    client.lpush("predict", JOB)
    while (status := client.hget(JOB, "status")) not in {"done", "failed"}:
        peak_rss = max(peak_rss, _rss(worker))
        if time.perf_counter() - started > TIMEOUT_S:
            raise RuntimeError(f"{JOB} was not done within {TIMEOUT_S:g} s")
        time.sleep(0.02)
    values = client.hgetall(JOB)
    if status == "failed":
        raise RuntimeError(f"{JOB} failed: {values.get('reason')}")
    return {
        "s": round(time.perf_counter() - started, 2),
        "predict_s": round(float(values["prediction_time"]), 2),
        "peak_rss_mb": peak_rss // 2**20,
        "idle_rss_mb": idle_rss // 2**20,
        "output": values["output_file_name"],
    }


def _rss(worker: psutil.Process) -> int:
    return max(process.memory_info().rss for process in (worker, *worker.children(recursive=True)))


def _labels(path: Path) -> int:
    """The largest label in a result, read tile by tile."""
    import tifffile

    with zipfile.ZipFile(path) as archive:
        (member,) = archive.namelist()
        local = Path(archive.extract(member, path.parent))
    with tifffile.TiffFile(local) as tif:
        return int(max(tile.max() for tile, *_ in tif.pages.first.segments(maxworkers=1) if tile is not None))
