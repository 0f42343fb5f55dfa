"""Measures how busy one worker keeps a model server with many small images."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.image_jobs import Plane, image_worker, photograph
from benchmarks.model_server import ModelServer, run_model_server
from redis_consumer.job import ModelId
from redis_consumer.serving.tfs.messages import predict_request
from redis_consumer.serving.tfs.server import PREDICT

SIDE_PX = 512
SERVICE_MS = 20.0
SLOTS = 8
JOBS = 400
CALLS = 100
RUNS = 3


def measure() -> dict[str, Any]:
    """Real worker of 8 slots, real Redis, local bucket, real gRPC server that takes 20 ms an image, one at a time.

    The image is 512 x 512 px, one float32 channel in and out; no functions. Medians of three runs.

    Returns:
        ``server_busy_pct`` from the first call to the last answer; ``images_per_s``; as references
        ``ideal_images_per_s``, of a server that never waits, and ``plain_images_per_s`` and ``plain_busy_pct`` of a
        client that has the image in memory and does nothing but call, one call after the other.
    """
    image = photograph(SIDE_PX, SIDE_PX)
    rates, busy = [], []
    with run_model_server(SERVICE_MS) as server:
        plain_rate = _plain(server, image)
        plain_busy = server.activity().busy_pct
        with image_worker(server, slots=SLOTS) as worker:
            worker.run(image, 4 * SLOTS)
            for _ in range(RUNS):
                server.activity()
                rates.append(worker.run(image, JOBS).jobs_per_s)
                busy.append(server.activity().busy_pct)
    return {
        "server_busy_pct": statistics.median(busy),
        "images_per_s": round(statistics.median(rates), 1),
        "ideal_images_per_s": 1e3 / SERVICE_MS,
        "plain_images_per_s": round(plain_rate, 1),
        "plain_busy_pct": plain_busy,
        "slots": SLOTS,
        "jobs": JOBS,
        "runs": RUNS,
    }


def _plain(server: ModelServer, image: Plane) -> float:
    """Calls a second of a loop that makes its requests and waits for each reply."""
    import grpc

    limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    batch = image[np.newaxis, ..., np.newaxis]
    with grpc.insecure_channel(server.address, limits) as channel:
        call = channel.unary_unary(PREDICT)
        started = time.perf_counter()
        for _ in range(CALLS):
            call(predict_request(ModelId("Echo", 1), {"image": batch}, {}))
        return CALLS / (time.perf_counter() - started)
