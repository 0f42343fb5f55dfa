"""Measures the memory of one slot for a plane, a stack of frames and many channels, and what it keeps afterwards."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.image_jobs import photograph
from benchmarks.worker import connect, idle_worker
from redis_consumer.cli import embedded
from redis_consumer.redis import RedisClient

SIDE_PX = 2048
FRAMES = 60
CHANNELS = 16
#: Factor of the bound: a job holds at most so many float32 planes, with all channels that its model takes.
PLANES = 12
SMALL_PX, SMALL_JOBS = 256, 50
SHIPPED, MANY = "NuclearSegmentation:1", "Channels:1"
CARD = """
preprocess = ["percentile_normalize"]
postprocess = ["deep_watershed"]

[tile]
size_px = 512
overlap_px = 64
"""
TIMEOUT_S = 1800.0
POLL_S = 0.05
#: A slot without a job gives memory back within this time.
SETTLED_S = 3.0

Pixels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Seen:
    """Memory of one slot in MB.

    Attributes:
        idle: resident before the job.
        peak: largest resident size in the job, over `idle`.
        call: what the worker says that one call of the model takes.
        after: resident after the small jobs that followed.
    """

    idle: float
    peak: float
    call: float
    after: float


def measure() -> dict[str, Any]:
    """Real jobs through Redis and a folder as bucket, each case in a new worker of one slot that runs the model itself.

    Images are uint16 TIFFs of 2048 x 2048 px. The model is the shipped one; for 16 channels, one of 16 inputs and
    random weights. 50 jobs of 256 x 256 px follow each case.

    Returns:
        ``idle_mb``, resident memory of a slot that waits, and ``call_mb``, what a call of the shipped model takes;
        largest resident memory over idle in a job of one plane, ``plane_mb``, of 60 frames, ``frames_mb``, and of 16
        channels, ``channels_mb``; ``after_mb``, resident memory after the small jobs, the largest of the three cases
        over its own idle, added to ``idle_mb``. References: ``channels_call_mb``, what a call of the other model takes;
        ``plane_bound_mb`` and ``channels_bound_mb``, which hold for a job of one frame or of many.
    """
    plane = _plane()
    stack = np.stack([np.roll(plane, 37 * number, axis=1) for number in range(FRAMES)])
    cases = {
        "plane": _run(plane, SHIPPED),
        "frames": _run(stack, SHIPPED),
        "channels": _run(np.stack([np.roll(plane, 37 * number, axis=1) for number in range(CHANNELS)]), MANY),
    }
    shipped = cases["plane"]
    kept = max(case.after - case.idle for case in cases.values())
    float_mb = 4 * SIDE_PX**2 / 1e6
    figures = {
        "idle_mb": shipped.idle,
        "call_mb": shipped.call,
        **{f"{name}_mb": case.peak for name, case in cases.items()},
        "after_mb": shipped.idle + kept,
        "channels_call_mb": cases["channels"].call,
        "plane_bound_mb": PLANES * float_mb + shipped.call,
        "channels_bound_mb": PLANES * CHANNELS * float_mb + cases["channels"].call,
    }
    return {name: round(value, 1) for name, value in figures.items()}


def _plane() -> Pixels:
    # At half of its size the nuclei are as wide as the shipped model wants them.
    picture = photograph(2 * SIDE_PX, 2 * SIDE_PX)[::2, ::2]
    return np.asarray(4000 * picture / picture.max(), np.uint16)


def _run(image: Pixels, model: str) -> Seen:
    from tifffile import imwrite

    is_many = model == MANY
    with tempfile.TemporaryDirectory() as name, embedded.run_redis() as server:
        folder = Path(name)
        uploads = folder / "bucket/uploads"
        uploads.mkdir(parents=True)
        imwrite(uploads / "image.tif", image, photometric="minisblack", compression="zlib")
        small = image[..., :SMALL_PX, :SMALL_PX] if is_many else image.reshape(-1, SIDE_PX, SIDE_PX)[0]
        imwrite(uploads / "small.tif", small[..., :SMALL_PX, :SMALL_PX], photometric="minisblack")
        if is_many:
            _save_model(folder / "bucket/models" / MANY.replace(":", "/"))
        with idle_worker(server, folder, WARM_UP=model, TMPDIR=name) as (worker, _):
            jobs = Jobs(connect(server), model, "CXY" if is_many else "")
            (slot,) = worker.children()
            idle = slot.memory_info().rss
            forget_peak(slot.pid)
            jobs.run("image.tif", 1)
            peak = peak_of(slot.pid)
            jobs.run("small.tif", SMALL_JOBS)
            time.sleep(SETTLED_S)
            after = slot.memory_info().rss
        return Seen(idle / 1e6, (peak - idle) / 1e6, _call_mb(folder / "worker.log"), after / 1e6)


class Jobs:
    """Submits jobs of one model and waits for them."""

    def __init__(self, client: RedisClient, model: str, order: str) -> None:
        self._client = client
        name, _, version = model.partition(":")
        self._fields = {"status": "new", "model_name": name, "model_version": version, "scale": "1"}
        self._fields |= {"dimension_order": order} if order else {}

    def run(self, file: str, jobs: int) -> None:
        """Run that many jobs with one file, all put into the queue at once."""
        keys = [f"predict:{file}:{number}" for number in range(jobs)]
        for key in keys:
            fields = {**self._fields, "original_name": file, "input_file_name": f"uploads/{file}"}
            self._client.hset(key, mapping=fields)
        self._client.lpush("predict", *keys)
        deadline = time.monotonic() + TIMEOUT_S
        for key in keys:
            while (values := self._client.hgetall(key))["status"] not in {"done", "failed"}:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{key} was not done within {TIMEOUT_S:g} s")
                time.sleep(POLL_S)
            _check(key, values)


def _check(key: str, values: Mapping[str, str]) -> None:
    if values["status"] != "done":
        raise RuntimeError(f"{key} failed: {values.get('reason')}")


def forget_peak(pid: int) -> None:
    """Let `peak_of` count from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_of(pid: int) -> int:
    """Return the largest resident size of a process since `forget_peak`, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _call_mb(log: Path) -> float:
    """What the worker said that a call of its model takes; 0 if it said nothing."""
    found = re.search(r"one call takes (\d+) MB", log.read_text())
    return float(found[1]) if found else 0.0


def _save_model(folder: Path) -> None:
    """Write a model of 16 channels: a distance and a foreground, of random weights, and its card."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(5)
    layers = {"first": (8, CHANNELS, 3, 3), "last": (2, 8, 3, 3)}
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name) for name, shape in layers.items()
    ]
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["hidden"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "last"], ["both"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["both"], ["chances"]),
        helper.make_node("Transpose", ["chances"], ["pixels"], perm=[0, 2, 3, 1]),
        helper.make_node("Split", ["pixels"], ["prediction_0", "prediction_1"], axis=3),
    ]
    sizes = {"image": CHANNELS, "prediction_0": 1, "prediction_1": 1}
    image, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, None, channels])
        for name, channels in sizes.items()
    )
    graph = helper.make_graph(nodes, "channels", [image], outputs, weights)
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
