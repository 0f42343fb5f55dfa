"""Reads a job's field ``outputs``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job
from redis_consumer.text import quoted

#: What can be made of label images, of every kind of job.
CELL_OUTPUTS = ("labels", "ome", "rois", "geojson", "table", "parquet", "overlay")
ALL = "all"


def wanted_outputs(job: Job, known: Sequence[str] = CELL_OUTPUTS) -> list[str]:
    """Return the additional files that a job names in its field ``outputs``, joined by commas, each once.

    Args:
        job: the job.
        known: what jobs of its kind have. ``all`` stands for all of them that the worker can write.

    Raises:
        InvalidJob: a name is unknown, or the worker lacks the library for it.
    """
    names = list(dict.fromkeys(part.strip().lower() for part in job.get("outputs").split(",") if part.strip()))
    unknown = [name for name in names if name not in (*known, ALL)]
    if unknown:
        raise InvalidJob(
            f"field outputs: {quoted(', '.join(unknown))} is unknown; give some of {', '.join(known)}, or all",
            job_id=job.id,
        )
    has_parquet = find_spec("pyarrow") is not None
    if "parquet" in names and not has_parquet:
        raise InvalidJob(
            "field outputs: parquet needs a library that the worker lacks; ask for table, or install "
            "kiosk-redis-consumer[parquet] there",
            job_id=job.id,
        )
    return [name for name in known if name != "parquet" or has_parquet] if ALL in names else names
