"""A small installation in this process: a bucket, the shipped model with a second version, and jobs that run in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tifffile
from onnx import numpy_helper

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.registry import get_consumer_class
from redis_consumer.models.store import PACKAGED
from redis_consumer.storage import Storage
from support.running import run_all
from support.worker import ROOT

MODEL = "NuclearSegmentation"
IMAGE = "uploads/a.tif"
FIELDS = {"original_name": "a.tif", "model_name": MODEL, "model_version": "1", "scale": "0.5"}


def write_crop(path: Path, corner: tuple[int, int] = (0, 200), sides: tuple[int, int] = (200, 240)) -> None:
    """Write a part of the project's image, with a few nuclei."""
    (top, left), (height, width) = corner, sides
    tifffile.imwrite(path, tifffile.imread(ROOT / "data" / "nuclei.tif")[top : top + height, left : left + width])


def new_version(folder: Path, factor: float = 0.7) -> Path:
    """Write version 3 of the shipped model: another threshold, in effect."""
    source, target = PACKAGED / MODEL / "1", folder / "3"
    target.mkdir(parents=True)
    model = onnx.load(str(source / "model.onnx"))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(factor), tensor.name))
    onnx.save(model, str(target / "model.onnx"))
    shutil.copy(source / "card.toml", target / "card.toml")
    return target / "model.onnx"


@dataclass
class Site:
    """Runs jobs by consumers in this process.

    Attributes:
        redis: a `RedisClient`.
        db: a plain client of the same Redis.
        storage: the bucket.
    """

    redis: Any
    db: Any
    storage: Storage
    _consumers: dict[str, Consumer] = field(default_factory=dict)

    def consumer(self, kind: str = "image", queue: str = "predict") -> Consumer:
        """The consumer of a queue, made when first asked for."""
        if queue not in self._consumers:
            self._consumers[queue] = get_consumer_class(kind)(self.redis, self.storage, queue, name="pod")
        return self._consumers[queue]

    def run(self, job_id: str = "predict:a.tif:1", key: str = IMAGE, **fields: str) -> dict[str, str]:
        """Submit a job, run everything that the consumers' queues hold, and give the job's hash."""
        self.db.hset(job_id, mapping={"status": "new", "input_file_name": key, **FIELDS, **fields})
        self.db.lpush(job_id.partition(":")[0], job_id)
        run_all(self._consumers)
        after: dict[str, str] = self.db.hgetall(job_id)
        return after

    def record(self, after: Mapping[str, str]) -> dict[str, Any]:
        """The provenance record of a job."""
        record: dict[str, Any] = json.loads(self.storage.read_bytes(after["provenance_file_name"]))
        return record

    def close(self) -> None:
        """Give back what consumers hold, but the client of Redis."""
        for consumer in self._consumers.values():
            for part in ("model_server", "models"):
                if part in consumer.__dict__:
                    consumer.__dict__[part].close()
