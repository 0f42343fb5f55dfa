"""Lists what one image costs at each station that it visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from simulation.engine import EVEN, Sharing


@dataclass(frozen=True)
class Sample:
    """What one job was seen to take, in seconds: work of its slot's cores, and waiting that nothing else accounts for.

    Attributes:
        before_work_s: download, reading, pre-processing.
        before_wait_s: waiting in them, such as for the disk.
        calls_work_s: the slot's part of all calls of the model server.
        calls_wait_s: waiting in them that is neither the server's work nor the model's.
        after_work_s: post-processing, saving, upload, and the way to the next job.
        after_wait_s: waiting in them.
    """

    before_work_s: float
    before_wait_s: float
    calls_work_s: float
    calls_wait_s: float
    after_work_s: float
    after_wait_s: float


@dataclass(frozen=True)
class Costs:
    """What an image costs.

    Attributes:
        samples: of jobs; each simulated one is like one of them, drawn at random.
        redis_s: time of Redis for a whole job, all commands together.
        redis_trips: how often the job waits for Redis.
        calls: of the model server.
        tiles: in all calls together.
        server_s: work of the model server's cores for a call, beside the model, for which the slot waits.
        beside_s: more of it, which is done while the slot works: it takes in what the slot still sends.
        read_bytes: downloaded.
        written_bytes: uploaded.
        objects: in which they are uploaded.
        slot_bytes: memory of a slot.
        sharing: what cores lose where several slots want them.
    """

    samples: Sequence[Sample]
    redis_s: float
    redis_trips: float
    calls: int
    tiles: int
    server_s: float
    read_bytes: float
    written_bytes: float
    objects: float = 1.0
    slot_bytes: int = 0
    beside_s: float = 0.0
    sharing: Sharing = EVEN

    @property
    def work_s(self) -> float:
        """Mean seconds of a slot's cores."""
        return fmean(each.before_work_s + each.calls_work_s + each.after_work_s for each in self.samples)

    @property
    def crowded_s(self) -> float:
        """The same where all cores are busy."""
        return self.work_s * self.sharing.slowdown

    @property
    def wait_s(self) -> float:
        """Mean seconds of waiting that no station accounts for."""
        return fmean(each.before_wait_s + each.calls_wait_s + each.after_wait_s for each in self.samples)
