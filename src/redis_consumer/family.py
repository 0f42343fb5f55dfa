"""How does a job fan out into children, and get back what they gave? One script each, see ``lua/family.lua``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redis_consumer.errors import RedisUnavailable
from redis_consumer.job import Job
from redis_consumer.queue import JobQueue
from redis_consumer.scripts import flat, script_call
from redis_consumer.text import in_utf8

#: Field of a parent with the method that goes on once its children have ended.
NEXT_PHASE = "next_phase"
#: Children that one command writes or reads.
CHUNK = 100
#: Seconds that the hash of a child lasts at most, should its parent never see its end.
CHILD_LIFE_S = 30 * 24 * 3600
#: Bytes of the contract's field with the keys of all children; without it where there are more.
MAX_LIST_BYTES = 1 << 16
_MAX_NAME = 200
#: The contract joins keys by commas.
_UNFIT = re.compile(r"[,\s\x00-\x1f\x7f]")


def child_key(parent: Job, queue: str, name: str, index: int) -> str:
    """Key of a child (contract, section 1.1): the same one in each run of the parent's phase.

    >>> child_key(Job("zip:a.zip:1"), "predict", "plate/HeLa.png", 0)
    'predict:plate/HeLa.png:4aa1e93cbb6aeef23b30e006e94de56a'

    Args:
        parent: the running job.
        queue: list that the child is pushed to.
        name: name by which the scientist knows the child's input.
        index: number of the child within the phase.
    """
    text = f"{parent.id}\0{parent.get(NEXT_PHASE)}\0{index}"
    digest = hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    shown = _UNFIT.sub("_", in_utf8(name))[-_MAX_NAME:]
    return f"{queue}:{shown}:{digest}"


class Family:
    """The children of one running job.

    All methods raise `LeaseLost` where the job isn't ours any more and `JobCancelled` where nobody wants it, or its
    own parent, any more.

    Args:
        queue: the parent's queue.
        parent: the running job.
    """

    def __init__(self, queue: JobQueue, parent: Job) -> None:
        self.queue = queue
        self.parent = parent
        self._staged = 0

    def stage(self, children: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Write hashes of children, which aren't in their queues yet; those of an earlier run go first.

        Args:
            children: key and fields of each, in order; see `child_key`.
        """
        keys = [self.queue.key("holders"), self.queue.key("cancelled"), self.parent.id]
        arguments = [self.queue.holder(self.parent), str(self._staged), str(CHILD_LIFE_S)]
        for key, fields in children:
            texts = flat(self.queue.stamp(fields))
            arguments += [key, str(len(texts)), *texts]
        self._check(self.queue.run(script_call("stage", keys, arguments)))
        self._staged += len(children)

    def fan_out(self, then: str, fields: Mapping[str, Any], *, share: int = 100) -> None:
        """Put what was staged into its queues, and let the parent wait for it; the claim ends.

        Args:
            then: method that goes on with the parent once all children have ended; at once where there are none.
            fields: what to write to the parent.
            share: percent of the parent's progress that the children stand for.
        """
        self._wait(str(self._staged), then, fields, share)

    def adopt(self, then: str, fields: Mapping[str, Any]) -> None:
        """Let the parent wait for the children of its field ``children``, which an older worker has pushed."""
        self._wait("-1", then, fields, 100)

    def _wait(self, count: str, then: str, fields: Mapping[str, Any], share: int) -> None:
        queue = self.queue
        kinds = ("leases", "given-back")
        keys = [queue.processing, queue.key("holders"), queue.key("cancelled"), self.parent.id, *map(queue.key, kinds)]
        stamped = queue.stamp({**fields, "status": "waiting", NEXT_PHASE: then})
        limits = [str(MAX_LIST_BYTES), str(queue.child_expire_s), str(share)]
        arguments = [queue.holder(self.parent), count, *limits, *flat(stamped)]
        call = script_call("fan_out", [*keys, queue.name, queue.key("forgiven")], arguments)
        self._check(queue.run(call))

    def children(self) -> Iterator[Job]:
        """Give all children in order, read some at a time; without fields those whose hash is gone."""
        for start in range(0, 1 << 31, CHUNK):
            arguments = [str(start), str(CHUNK)]
            rows = self.queue.run(script_call("children", [self.parent.id], arguments))
            for key, *texts in rows:
                yield Job(key, dict(zip(texts[::2], texts[1::2], strict=True)))
            if len(rows) < CHUNK:
                return

    def _check(self, code: int) -> None:
        if code == 3:
            raise RedisUnavailable(
                f"job {self.parent.id}: children that were written before are missing, as after a failover of Redis; "
                "the job runs again",
                job_id=self.parent.id,
            )
        self.queue.check(code, self.parent)
