"""Divides a job into child jobs and reads their results, with one script for each step; see ``lua/job_tree.lua``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from redis_consumer.job import Job
from redis_consumer.queue import JobQueue
from redis_consumer.queue.scripts import flat, own_key
from redis_consumer.text import in_utf8

#: Field of a parent with the method that continues the job when its children have ended.
NEXT_PHASE = "next_phase"
#: Children that one command writes or reads.
CHUNK = 100
#: Seconds after which the hash of a child expires at the latest, if its parent never sees its end.
CHILD_LIFE_S = 30 * 24 * 3600
#: Largest size of the contract's field with the keys of all children, in bytes. A larger field is left out.
MAX_LIST_BYTES = 1 << 16
_MAX_NAME = 200
#: The contract joins keys with commas.
_UNFIT = re.compile(r"[,\s\x00-\x1f\x7f]")


def child_key(parent: Job, queue: str, name: str, index: int) -> str:
    """Make the key of a child (contract, section 1.1). It is the same in each run of the parent's phase.

    >>> child_key(Job("zip:a.zip:1"), "predict", "plate/HeLa.png", 0)
    'predict:plate/HeLa.png:4aa1e93cbb6aeef23b30e006e94de56a'

    Args:
        parent: the running job.
        queue: list to which the child is pushed.
        name: name of the child's input, for users.
        index: number of the child within the phase.
    """
    text = f"{parent.id}\0{parent.get(NEXT_PHASE)}\0{index}"
    digest = hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    shown = _UNFIT.sub("_", in_utf8(name))[-_MAX_NAME:]
    return f"{queue}:{shown}:{digest}"


class ChildJobs:
    """The children of one running job.

    All methods raise `LeaseLost` if this worker no longer holds the job, and `JobCancelled` if the job or its own
    parent was cancelled.

    Args:
        queue: the parent's queue.
        parent: the running job.
    """

    def __init__(self, queue: JobQueue, parent: Job) -> None:
        self.queue = queue
        self.parent = parent
        self._written = 0

    def write_children(self, children: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Write hashes of children that aren't in their queues yet. Those of an earlier run are removed first.

        Args:
            children: key and fields of each, in order; see `child_key`.
        """
        texts: list[str | int] = []
        for key, fields in children:
            stamped = flat(self.queue.stamp(fields))
            texts += [key, len(stamped), *stamped]
        self.queue.run_for(self.parent, "write_children", self._written, CHILD_LIFE_S, *texts)
        self._written += len(children)

    def unserved(self, queues: Iterable[str]) -> list[str]:
        """Return those of some queues that no worker serves. Workers of older software do not register."""
        seconds, microseconds = self.queue.redis.time()
        after = f"({1000 * seconds + microseconds // 1000}"
        return [name for name in queues if not self.queue.redis.zcount(own_key("workers", name), after, "+inf")]

    def fan_out(self, then: str, fields: Mapping[str, Any], *, share: int = 100) -> None:
        """Push the written children into their queues and let the parent wait for them. This ends the claim.

        Args:
            then: method that continues the parent when all children have ended; at once if there are none.
            fields: fields to write to the parent.
            share: percentage of the parent's progress that the children make up.
        """
        self._wait(self._written, then, fields, share)

    def adopt(self, then: str, fields: Mapping[str, Any]) -> None:
        """Let the parent wait for the children of its field ``children``, which an older worker has pushed."""
        self._wait("pushed", then, fields, 100)

    def _wait(self, count: str | int, then: str, fields: Mapping[str, Any], share: int) -> None:
        stamped = self.queue.stamp({**fields, "status": "waiting", NEXT_PHASE: then})
        limits = (MAX_LIST_BYTES, self.queue.options.child_expire_s, share)
        self.queue.run_for(self.parent, "fan_out", count, *limits, *flat(stamped))

    def children(self) -> Iterator[Job]:
        """Yield all children in order, read in batches. A child whose hash is gone has no fields."""
        for start in range(0, 1 << 31, CHUNK):
            rows = self.queue.run("read_children", self.parent.id, start, CHUNK)
            for key, *texts in rows:
                yield Job(key, dict(zip(texts[::2], texts[1::2], strict=True)))
            if len(rows) < CHUNK:
                return
