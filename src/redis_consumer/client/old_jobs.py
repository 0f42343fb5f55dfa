"""Finds jobs that ended long ago, and the keys and objects that belong only to them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis_consumer.client.watch import age_s, read_fields
from redis_consumer.errors import InvalidJob
from redis_consumer.job import FINAL_STATUSES, Job
from redis_consumer.queue import JobQueue, admin
from redis_consumer.storage import Storage
from redis_consumer.storage.keys import OUTPUT_DIR, check_key, output_key, record_key, zip_name

#: Number of keys that one step reads.
PAGE = 500
#: If the hash of a child has expired, results of this many attempts are looked for.
RUNS = 5
#: Fields that name objects uploaded by a worker.
RESULTS = ("output_file_name", "provenance_file_name", "skipped_file_name")
FIELDS = ("status", "updated_at", "finished_at", "parent", "children", "input_file_name", *RESULTS)


@dataclass
class OldJob:
    """A job that may be removed.

    Attributes:
        queue: the queue that it was in.
        job_id: key of its hash.
        fields: some fields of its hash.
        memory_bytes: memory that its hash uses in Redis.
        objects: keys and sizes in bytes of the objects that belong only to this job.
    """

    queue: JobQueue
    storage: Storage
    job_id: str
    fields: dict[str, str]
    memory_bytes: int = 0
    objects: dict[str, int] = field(default_factory=dict)

    def remove(self) -> bool:
        """Remove its objects and then its hash. If this fails midway, the job is found again next time.

        Return False if the job has changed meanwhile, for example by a retry.
        """
        if self.queue.redis.hget(self.job_id, "status") not in FINAL_STATUSES:
            return False
        for key in self.objects:
            self.storage.delete(key)
        return admin.forget(self.queue, self.job_id, self.fields["updated_at"])


class OldJobs:
    """Jobs of some queues that ended longer ago than a given time.

    Args:
        redis: the client.
        storage: the bucket.
        queues: queues of the jobs.
        older_than_s: seconds since the end of a job.
    """

    def __init__(self, redis: Any, storage: Storage, queues: Sequence[JobQueue], older_than_s: float) -> None:
        self._redis = redis
        self._storage = storage
        self._queues = {queue.name: queue for queue in queues}
        self._age_s = older_than_s
        self._old: list[str] = []
        self._kept: set[str] = set()

    def jobs(self) -> Iterator[OldJob]:
        """Yield the jobs with their objects. All jobs in Redis are read before the first one is given."""
        self._look()
        for job_id in self._old:
            fields = self._read([job_id])[0]
            if self._is_old(fields):
                yield self._old_job(job_id, fields)

    def _look(self) -> None:
        """Note which jobs are old, and which objects must be kept: those that other jobs name, and uploaded inputs."""
        cursor = 0
        while True:
            cursor, keys = self._redis.scan(cursor, count=PAGE, _type="hash")
            job_ids = [key for key in keys if not key.startswith("redis-consumer:")]
            for job_id, fields in zip(job_ids, self._read(job_ids), strict=True):
                is_ours = job_id.partition(":")[0] in self._queues
                is_going = is_ours and self._is_old(fields) and not self._has_living_parent(fields)
                if is_going:
                    self._old.append(job_id)
                else:
                    self._kept.update(fields[name] for name in RESULTS)
                # Someone may have submitted the copy of a member again, with all the fields of the child that it was.
                if not is_going or not fields["input_file_name"].startswith(_members_of(fields["parent"])):
                    self._kept.add(fields["input_file_name"])
            if not cursor:
                return

    def _read(self, job_ids: Sequence[str]) -> list[dict[str, str]]:
        rows = read_fields(self._redis, job_ids, FIELDS)
        return [dict(zip(FIELDS, (text or "" for text in row), strict=True)) for row in rows]

    def _is_old(self, fields: dict[str, str]) -> bool:
        if fields["status"] not in FINAL_STATUSES:
            return False
        # The later one: a job that was done once, and failed when it was submitted again, has both.
        ages_s = [age for name in ("finished_at", "updated_at") if (age := age_s(fields[name])) is not None]
        return bool(ages_s) and min(ages_s) > self._age_s

    def _has_living_parent(self, fields: dict[str, str]) -> bool:
        parent = fields["parent"]
        if not parent or self._redis.type(parent) != "hash":
            return False
        return self._redis.hget(parent, "status") not in FINAL_STATUSES

    def _old_job(self, job_id: str, fields: dict[str, str]) -> OldJob:
        queue = self._queues[job_id.partition(":")[0]]
        job = OldJob(queue, self._storage, job_id, fields, self._redis.memory_usage(job_id) or 0)
        for key in self._keys_of(job_id, fields):
            size = self._storage.size(key) if _is_output(key) and key not in self._kept else None
            if size is not None:
                job.objects[key] = size
        return job

    def _keys_of(self, job_id: str, fields: dict[str, str]) -> Iterator[str]:
        """Yield keys of objects that may belong to a job. Some of them may not exist."""
        yield from (fields[name] for name in RESULTS)
        if fields["parent"] and fields["input_file_name"].startswith(_members_of(fields["parent"])):
            yield fields["input_file_name"]
        # Hashes of children expire soon after their parent has ended.
        yield from self._storage.list_keys(_members_of(job_id))
        for child in filter(None, fields["children"].split(",")):
            if self._redis.exists(child):
                continue
            for attempt in range(1, RUNS + 1):
                run = Job(child, attempt=attempt)
                yield from (output_key(zip_name(run)), record_key(run))


def _members_of(job_id: str) -> str:
    """Return the key prefix of the archive members that a job has uploaded."""
    digest = hashlib.md5(job_id.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    return f"{OUTPUT_DIR}/{digest}/"


def _is_output(key: str) -> bool:
    with contextlib.suppress(InvalidJob):
        return check_key(key) == key and key.startswith(f"{OUTPUT_DIR}/")
    return False
