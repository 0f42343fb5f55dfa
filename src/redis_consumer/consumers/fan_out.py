"""Divides a job into children, and continues it when they have ended."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis_consumer.errors import InvalidJob
from redis_consumer.job import FINAL_STATUSES, Job, JobStatus
from redis_consumer.job import inherited as inherited
from redis_consumer.queue import timestamp
from redis_consumer.queue.child_jobs import CHUNK, NEXT_PHASE, ChildJobs, child_key
from redis_consumer.text import quoted
from redis_consumer.traces import carried
from redis_consumer.wanted import AT_ONCE, OrderedPool

#: Largest size of the fields that each of many children inherits, in bytes.
MAX_COMMON_BYTES = 1 << 16
_MARK = "is_second_phase"


@dataclass(frozen=True)
class Child:
    """A child that a job will have.

    Attributes:
        queue: the list to which it is pushed, in lower case.
        name: the user's name for its input; can have folders.
        path: local file of its input, which is uploaded and then removed from disk. None if the field
            ``input_file_name`` names an object.
        fields: other fields of its hash.
        beside: other local files of its input, which are uploaded into the same folder and removed, too.
    """

    queue: str
    name: str
    path: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    beside: Sequence[Path] = ()


def second_phase(method: Callable[..., str]) -> Callable[..., str]:
    """Mark a method of a consumer that continues a job when its children have ended.

    It takes the key of the job's hash and returns a status, like `Consumer._consume`. A job can name only marked
    methods.
    """
    setattr(method, _MARK, True)
    return method


def method_of_phase(consumer: object, job: Job) -> Callable[[str], str]:
    """Return the method that continues a job after its children.

    Raises:
        InvalidJob: the consumer has no second phase of the name in the job.
    """
    name = job.get(NEXT_PHASE)
    method = _phase(consumer, name)
    if method is None:
        raise InvalidJob(
            f"field {NEXT_PHASE}: {quoted(name)} is no second phase of {type(consumer).__name__}; submit the job again",
            job_id=job.id,
        )
    return method


def check_phase(consumer: object, then: str) -> None:
    """Refuse a name that is not that of a second phase.

    Raises:
        ValueError: the message lists the second phases.
    """
    if _phase(consumer, then) is None:
        kind = type(consumer)
        known = [name for name in dir(kind) if getattr(getattr(kind, name, None), _MARK, False)]
        raise ValueError(
            f"fan_out: then={then!r} is no method marked by @second_phase; {kind.__name__} has: "
            f"{', '.join(known) or 'none'}"
        )


def _phase(consumer: object, name: str) -> Callable[[str], str] | None:
    method: Callable[[str], str] | None = getattr(consumer, name, None)
    return method if getattr(method, _MARK, False) else None


def common_fields(job: Job) -> dict[str, str]:
    """Return the fields that each of many children inherits.

    Raises:
        InvalidJob: they are so large that they would fill Redis.
    """
    fields = inherited(job)
    size = sum(
        len(name.encode("utf-8", "replace")) + len(text.encode("utf-8", "replace")) for name, text in fields.items()
    )
    if size > MAX_COMMON_BYTES:
        raise InvalidJob(
            f"fields of the job: hold {size} bytes, which each image would get a copy of, allowed are "
            f"{MAX_COMMON_BYTES}; put what is large into the bucket",
            job_id=job.id,
        )
    return fields


def write_children(
    child_jobs: ChildJobs, children: Iterable[Child], storage: Any, check: Callable[[], None]
) -> dict[str, str]:
    """Upload the inputs of children and write their hashes, without pushing them into a queue.

    Args:
        child_jobs: the child jobs of the running job.
        children: the children in order; can be a generator.
        storage: the bucket for their inputs.
        check: raises an error if the job was cancelled; called for each child.

    Returns:
        Fields for the running job: the time that this took.

    Raises:
        LeaseLost, JobCancelled: as `Consumer.update_key`.
    """
    started, job = time.monotonic(), child_jobs.parent
    folder = hashlib.md5(job.id.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()

    def upload(numbered: tuple[int, Child]) -> tuple[int, Child, dict[str, Any]]:
        index, child = numbered
        if child.path is None:
            return index, child, {}
        key, url = storage.upload(str(child.path), f"{folder}/{index}")
        for other in child.beside:
            storage.upload_file(other, f"{key.rpartition('/')[0]}/{other.name}")
        for path in (child.path, *child.beside):
            path.unlink()
        return index, child, {"input_file_name": key, "url": url}

    given = {"identity_upload": child_jobs.queue.worker, **carried(job.fields)}
    chunk: list[tuple[str, Mapping[str, Any]]] = []
    with OrderedPool(AT_ONCE) as pool:
        for index, child, where in pool.map(upload, enumerate(children)):
            check()
            chunk.append((child_key(job, child.queue, child.name, index), _hash_of(child, {**where, **given})))
            if len(chunk) == CHUNK:
                child_jobs.write_children(chunk)
                chunk.clear()
    if chunk:
        child_jobs.write_children(chunk)
    return {"children_upload_time": f"{time.monotonic() - started:.6f}"}


def _hash_of(child: Child, given: Mapping[str, Any]) -> dict[str, Any]:
    life = {"status": JobStatus.NEW.value, "created_at": timestamp()}
    return {"original_name": child.name, **child.fields, **given, **life}


def reason_of_child(child: Job) -> str:
    """Return why a child has no result, on one line; empty if it has one."""
    if child.status == JobStatus.DONE:
        return ""
    if child.status not in FINAL_STATUSES:
        return "its job expired, or was deleted, before it had ended; submit the image again"
    lines = child.get("reason").strip().splitlines()
    return lines[-1].strip() if lines else "its worker gave no reason"
