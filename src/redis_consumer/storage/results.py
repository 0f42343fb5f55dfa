"""Names the objects of a job's result, and removes those whose result doesn't count."""

from __future__ import annotations

import hashlib
from itertools import count, takewhile
from typing import Any

from redis_consumer.job import Job, OrphanedResult
from redis_consumer.storage.keys import output_key


def zip_name(job: Job, number: int = 0) -> str:
    """Return the name of a zip of one run of a job. It is unique, so a late run can't overwrite the result of another.

    Args:
        job: the job with the number of the run.
        number: number of zips that this run has uploaded before.
    """
    text = f"{job.id}:{job.attempt}" + (f":{number}" if number else "")
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest() + ".zip"


def record_key(job: Job) -> str:
    """Return the key of the provenance record of one run of a job, beside its zip.

    >>> record_key(Job("predict:a.tif:1"))
    'output/f7ed7baaf8b638c92af6e3e2d5462f94.provenance.json'
    """
    return output_key(zip_name(job).removesuffix(".zip") + ".provenance.json")


def discard_record(storage: Any, orphan: OrphanedResult) -> None:
    """Remove the provenance record of one run, but never the visible one."""
    key = record_key(orphan.job)
    if hasattr(storage, "delete") and key != orphan.record:
        storage.delete(key)


def discard_zips(storage: Any, orphan: OrphanedResult) -> list[str]:
    """Remove the zips that one run has uploaded, but never the visible one; return the removed keys."""
    if not hasattr(storage, "delete"):
        return []
    keys = (output_key(zip_name(orphan.job, number)) for number in count())
    # The first one is removed last. If it is gone, so are the others.
    found = [key for key in reversed(list(takewhile(storage.exists, keys))) if key != orphan.visible]
    for key in found:
        storage.delete(key)
    return found
