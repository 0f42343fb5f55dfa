"""Observes jobs from outside during chaos: results, second results, and how soon jobs come back."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from chaos.ledger import Ledger, Note

FINAL = ("done", "failed")
#: Seconds in which the job of a slot that died is promised to be back.
SLOT_RECOVERY_S = 1.0
#: Seconds after which a look at Redis, or the time since the one before, is no normal one.
SLOW_S = 0.25
#: A slot's death may fall between its neighbour's move and the lease: such an entry isn't stranded.
CLAIM_S = 0.1
WAIT_MS = 300

_LOOK = """
local states = {}
for _, job in ipairs(ARGV) do
  local values = redis.call("HMGET", job, "status", "output_file_name")
  states[#states + 1] = (values[1] or "") .. " " .. (values[2] or "")
end
return {states, redis.call("LRANGE", KEYS[1], 0, -1), redis.call("HGETALL", KEYS[2])}
"""


@dataclass
class Stranded:
    """A job whose holder was killed.

    Attributes:
        kind: ``slot`` or ``worker``, what was killed.
        worker: its name.
        pid: the process.
        holder: fencing token at that moment, None where there was only the entry.
        killed_at: when.
        is_disturbed: whether something else that it takes to come back was broken meanwhile.
        started_at: when its next run began, None where none was noted yet.
    """

    kind: str
    worker: str
    pid: int
    holder: str | None
    killed_at: float
    is_disturbed: bool = False
    started_at: float | None = None


@dataclass
class Run:
    """What a slot does at the moment."""

    job: str
    worker: str
    attempt: int
    style: str
    stage: str = ""


@dataclass
class Findings:
    """What was seen so far."""

    states: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    second: list[str] = field(default_factory=list)
    unconfirmed_lost: int = 0
    starts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    settled: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    runs: dict[int, Run] = field(default_factory=dict)
    recoveries_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    late: list[str] = field(default_factory=list)


class Watcher:
    """Looks at all jobs by one script, and reads what the workers note.

    Args:
        queue: name of the queue.
        ledger: where visible results are noted.
        confirms: whether results are confirmed by ``WAIT 1``; those that a failover takes back before don't count.
    """

    def __init__(self, queue: str, ledger: Ledger, *, confirms: bool = False) -> None:
        self.queue = queue
        self.ledger = ledger
        self.confirms = confirms
        self.seen = Findings()
        self.jobs: list[str] = []
        self.waiting: list[str] = []
        self.holders: dict[str, str] = {}
        self.stranded: dict[str, Stranded] = {}
        self._looked_at = time.monotonic()

    def listen(self, notes: list[Note]) -> None:
        """Take in what the workers noted."""
        seen = self.seen
        for note in notes:
            event, pid = note["event"], note["pid"]
            if event == "start":
                seen.starts[note["job"]] += 1
                seen.runs[pid] = Run(note["job"], note["worker"], note["attempt"], note["style"])
                self._note_claim(note)
                self._note_next_run(note)
            elif event == "stage" and pid in seen.runs:
                seen.runs[pid].stage = note["stage"]
            elif event == "end":
                seen.runs.pop(pid, None)
                seen.settled[note["job"]] += note["outcome"] == "settled"

    def _note_claim(self, note: Note) -> None:
        """A neighbour that held the job already when the slot died, whose note came later: nothing was stranded."""
        stranded = self.stranded.get(note["job"])
        if stranded is None or note["pid"] == stranded.pid or note["worker"] != stranded.worker:
            return
        is_same = stranded.holder is not None and stranded.holder.startswith(f"{note['attempt']} ")
        is_neighbour = stranded.holder is None and note["at"] - stranded.killed_at < CLAIM_S
        if is_same or is_neighbour:
            del self.stranded[note["job"]]

    def _note_next_run(self, note: Note) -> None:
        stranded = self.stranded.get(note["job"])
        if stranded is not None and note["at"] > stranded.killed_at:
            stranded.started_at = stranded.started_at or note["at"]

    def look(self, client: Any) -> None:
        """Read the state of all jobs. Raises redis-py's errors if Redis is unavailable."""
        if not self.jobs:
            return
        began, before = time.monotonic(), self._looked_at
        self._looked_at = began  # also where Redis is unavailable, which is noted elsewhere
        states, waiting, holders = client.eval(_LOOK, 2, self.queue, f"redis-consumer:holders:{self.queue}", *self.jobs)
        now = time.monotonic()
        self._looked_at = now
        self._note_slowness(redis_s=now - began, late_s=began - before)
        self.waiting, self.holders = waiting, dict(zip(holders[::2], holders[1::2], strict=True))
        fresh = []
        for job, state in zip(self.jobs, states, strict=True):
            if state != self.seen.states.get(job):
                self._note_state(job, state)
                if job in self.seen.results and job not in self.seen.confirmed:
                    fresh.append(job)
        if self.confirms:
            self._confirm(client, fresh)
        else:
            self.seen.confirmed.update(fresh)
        self._note_returns(now)

    def _note_slowness(self, *, redis_s: float, late_s: float) -> None:
        """A slow Redis, asked directly, delays all processes; a late look sees everything late."""
        if redis_s > SLOW_S:
            self.ledger.note("slow", what="redis", took_s=round(redis_s, 3))
            self.disturb(kinds=("slot",))
        if late_s > SLOW_S:
            self.ledger.note("slow", what="watcher", took_s=round(late_s, 3))
            for stranded in self.stranded.values():
                stranded.is_disturbed |= stranded.kind == "slot" and stranded.started_at is None

    def _note_state(self, job: str, state: str) -> None:
        seen = self.seen
        seen.states[job] = state
        status, _, output = state.partition(" ")
        self.ledger.note("seen", job=job, status=status, output=output)
        if job not in seen.results:
            if status in FINAL:
                seen.results[job] = state
        elif job in seen.confirmed:
            seen.second.append(job)
            self.ledger.note("second", job=job, first=seen.results[job], now=state)
        elif seen.results[job] != state:
            seen.unconfirmed_lost += 1
            self.ledger.note("taken back", job=job, first=seen.results.pop(job), now=state)

    def _confirm(self, client: Any, fresh: list[str]) -> None:
        """Results seen before a write are on the replica once that write is."""
        pending = [job for job in self.seen.results if job not in self.seen.confirmed]
        if not (fresh or pending):
            return
        client.set("chaos-mark", "1")
        if client.wait(1, WAIT_MS) >= 1:
            self.seen.confirmed.update(pending)

    # Jobs of killed processes.

    def strand(self, client: Any, kind: str, worker: str, pid: int, killed_at: float) -> None:
        """Note which jobs a kill has left in the worker's list; ask directly after the kill."""
        began = time.monotonic()
        entries = client.lrange(f"processing-{self.queue}:{worker}", 0, -1)
        holders = client.hgetall(f"redis-consumer:holders:{self.queue}")
        others = {run.job for other, run in self.seen.runs.items() if other != pid and run.worker == worker}
        for job in entries:
            before = self.stranded.get(job)
            is_known = before is not None and before.holder == holders.get(job) and before.kind == "worker"
            if is_known or (kind == "slot" and job in others):
                continue
            self.stranded[job] = Stranded(kind, worker, pid, holders.get(job), killed_at)
            self.ledger.note("stranded", job=job, kind=kind, worker=worker, holder=holders.get(job))
        self._note_slowness(redis_s=time.monotonic() - began, late_s=0.0)

    def bury(self, worker: str, pid: int) -> None:
        """Note that a process was killed (0: all of a worker): nothing runs in it any more."""
        runs = self.seen.runs
        self.seen.runs = {one: run for one, run in runs.items() if run.worker != worker or pid not in (0, one)}

    def forget(self, job: str) -> None:
        """Note that other software puts the job into its queue: when it comes back by itself can't be seen any more."""
        self.stranded.pop(job, None)

    def disturb(self, *, kinds: Collection[str], worker: str | None = None) -> None:
        """Say that something is broken which jobs of these kinds need to come back, of one worker or of all."""
        for stranded in self.stranded.values():
            if stranded.kind in kinds and worker in (None, stranded.worker):
                stranded.is_disturbed = True

    def _note_returns(self, now: float) -> None:
        waiting = set(self.waiting)
        for job, stranded in list(self.stranded.items()):
            holder = self.holders.get(job)
            if job in self.seen.results:
                del self.stranded[job]
            elif job in waiting or (holder is not None and holder != stranded.holder):
                del self.stranded[job]
                kind = "disturbed" if stranded.is_disturbed else stranded.kind
                after_s = min(now, stranded.started_at or now) - stranded.killed_at
                self.seen.recoveries_s[kind].append(after_s)
                if kind == "slot" and after_s > SLOT_RECOVERY_S:
                    self.seen.late.append(job)
                self.ledger.note("back", job=job, kind=kind, after_s=round(after_s, 3))
