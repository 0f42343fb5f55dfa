"""Runs jobs by consumers in this process, on a real Redis, and opens their results."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile

from redis_consumer.consumers.base import Consumer
from support.queues import claimed

#: The hash of a job, and the files of its result, by name.
Result = tuple[dict[str, str], dict[str, bytes]]
#: The hash of a job, and the label images of its result, by name.
Labels = tuple[dict[str, str], dict[str, Any]]


def put_image(folder: Path, image: Any, name: str = "a.tif", **metadata: str) -> dict[str, str]:
    """Write an image as the frontend uploads it; return the fields of a new job for it."""
    path = folder / "uploads" / name
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack", metadata=metadata or {})
    return {"status": "new", "input_file_name": f"uploads/{name}", "original_name": name}


def run_job(consumer: Consumer, db: Any, job_id: str, fields: Mapping[str, str]) -> Result:
    """Submit a job to a consumer and run it."""
    _submit(consumer, db, job_id, fields)
    consumer.run(claimed(consumer.job_queue))
    return result_of(consumer, job_id)


def run_with_children(consumers: Mapping[str, Consumer], db: Any, job_id: str, fields: Mapping[str, str]) -> Result:
    """Submit a job to the first consumer, and run it and all of its children, each by the consumer of its queue."""
    parent = next(iter(consumers.values()))
    _submit(parent, db, job_id, fields)
    run_all(consumers)
    return result_of(parent, job_id)


def run_all(consumers: Mapping[str, Consumer]) -> None:
    """Run the jobs in the queues of all consumers, and those that come meanwhile, until there are none."""
    is_busy = True
    while is_busy:
        taken = [(consumer, consumer.job_queue.claim()) for consumer in consumers.values()]
        for consumer, job in taken:
            if job is not None:
                consumer.run(job)
        is_busy = any(job is not None for _, job in taken)


def result_of(consumer: Consumer, job_id: str) -> Result:
    """Return the hash of a job, and the files of its result; no files if it has none."""
    after = consumer.redis.hgetall(job_id)
    if after["status"] != "done":
        return after, {}
    archive = zipfile.ZipFile(io.BytesIO(consumer.storage.read_bytes(after["output_file_name"])))
    return after, {name: archive.read(name) for name in archive.namelist()}


def as_labels(result: Result) -> Labels:
    """Read the files of a result as TIFF images."""
    after, files = result
    return after, {name: tifffile.imread(io.BytesIO(data)) for name, data in files.items()}


def _submit(consumer: Consumer, db: Any, job_id: str, fields: Mapping[str, str]) -> None:
    db.hset(job_id, mapping=dict(fields))
    db.lpush(consumer.queue, job_id)
