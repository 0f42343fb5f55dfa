"""Checks that archives and movies stay whole while workers and Redis are killed in each phase."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from chaos.consumer import LEDGER_VARIABLE
from chaos.kinds import FACTOR, IMAGES, MODEL, Archives, Kind, Movies
from chaos.ledger import Ledger, Reader
from chaos.servers import Bucket, Redis, Worker, clear
from redis_consumer.cli import embedded

KINDS: tuple[Kind, ...] = (Archives(), Movies())
QUEUES = (IMAGES, *(kind.queue for kind in KINDS))
WORKERS = 3
#: Parents of each kind that are under way at once: more than there are slots for them, so that some wait.
AT_ONCE = 4
KILL_EVERY_S = (0.5, 1.5)
LOOK_S = 0.02
#: Seconds after the last kill in which every job must end.
DRAIN_S = 90.0
EMPTY_S = 15.0
#: Where a parent is when a worker is killed: its children are made; all of them wait; they run; all have ended, and it
#: waits for its second phase; it is in that.
PHASES = ("first", "pushed", "children", "ended", "second")
#: What is killed: one process that runs jobs, or their supervisor, and they with it.
VICTIMS = ("slot", "supervisor")
#: Redis is killed once in this many kills.
REDIS_EVERY = 10
#: Fields that must be empty at the end.
HASHES, KEYS = ("holders", "attempts"), ("family", "children", "open", "staged", "waiting")
#: A run is killed in its first attempts only: a job that is killed in its last one fails, as documented.
LAST_KILLED = 3


@dataclass(frozen=True)
class Target:
    """What to kill: the process of a job of this kind that is in this phase."""

    kind: Kind
    phase: str
    victim: str


@dataclass
class Watch:
    """What was observed from outside.

    Attributes:
        jobs: kind of each parent that was sent.
        results: status and object of each that has ended.
        second: those whose end changed.
        kills: how often in which phase of which kind, and whom.
        redis_kills: how often Redis was killed.
    """

    jobs: dict[str, Kind] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    second: set[str] = field(default_factory=set)
    kills: dict[str, dict[str, dict[str, int]]] = field(
        default_factory=lambda: {kind.name: {phase: dict.fromkeys(VICTIMS, 0) for phase in PHASES} for kind in KINDS}
    )
    redis_kills: int = 0

    def open(self, kind: Kind) -> list[str]:
        """Parents of a kind that haven't ended."""
        return [job for job, each in self.jobs.items() if each is kind and job not in self.results]

    def missed(self) -> list[str]:
        """Phases in which not every kind of process was killed."""
        return [
            f"{name} {phase} {victim}"
            for name, phases in self.kills.items()
            for phase, victims in phases.items()
            for victim, count in victims.items()
            if not count
        ]


class ArchiveChaos:
    """Archives and movies, three workers for all queues, and a plan by a seed.

    Args:
        folder: empty, for logs and data.
        jobs: of both kinds together, at least: they come until somebody was killed in each phase.
        seed: of the plan.
        seconds: for which they come, at most.
    """

    def __init__(self, folder: Path, *, jobs: int, seed: int, seconds: float) -> None:
        self.dice = random.Random(f"archives {seed}")
        self.jobs = jobs
        self.seconds = seconds
        self.bucket = Bucket(folder / "bucket")
        self.redis = Redis(folder / "redis", "redis")
        self.watch = Watch()
        self.plan = self._shuffled_plan()
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.reader = Reader(folder / "ledger.jsonl")
        self.pids: dict[str, int] = {}
        settings = {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis.port),
            "REDIS_TIMEOUT": "0.1",
            "LEASE_TIMEOUT": "4",
            "SWEEP_INTERVAL": "1",
            "STORAGE_BUCKET": self.bucket.folder.as_uri(),
            "MODEL_SERVER": "onnx://",
            "SEGMENTATION_QUEUE": IMAGES,
            "TRACKING_SEGMENT_MODEL": ":".join(MODEL),
            "TMPDIR": str(folder),
            LEDGER_VARIABLE: str(folder / "ledger.jsonl"),
        }
        self.workers = [Worker(folder, number, settings, arguments=_serve()) for number in range(WORKERS)]
        self._client: Any = None

    def run(self) -> dict[str, Any]:
        """Run it to the end and return the figures."""
        self._start()
        begun = kill_at = time.monotonic()
        while (now := time.monotonic()) - begun < self.seconds + DRAIN_S:
            self.pids |= {note["job"]: note["pid"] for note in self.reader.new()}
            is_over = now - begun > self.seconds or (len(self.watch.jobs) >= self.jobs and not self.watch.missed())
            with contextlib.suppress(redis.RedisError):
                self._look()
                if not is_over:
                    self._submit()
                    if now > kill_at and self._kill():
                        kill_at = now + self.dice.uniform(*KILL_EVERY_S)
            self._revive()
            if is_over and not any(map(self.watch.open, KINDS)):
                break
            time.sleep(LOOK_S)
        residue = self._residue()
        return {**self._figures(), "residue": len(residue), "left": residue[:5]}

    def end(self) -> None:
        """End every process by its id."""
        for process in [*self.workers, self.redis]:
            process.end()
        self.reader.close()
        self.ledger.close()

    def _start(self) -> None:
        from support import onnx_models  # loads onnx, whose size would count in benchmarks

        onnx_models.save(self.bucket.folder / "models", MODEL[0], int(MODEL[1]), onnx_models.scaling(FACTOR))
        for kind in KINDS:
            kind.write(self.bucket.folder / "uploads")
        self.redis.start()
        self.redis.await_ready()
        for worker in self.workers:
            worker.start_again(False)

    def _shuffled_plan(self) -> list[Target]:
        cells = [Target(kind, phase, victim) for kind in KINDS for phase in PHASES for victim in VICTIMS]
        return self.dice.sample(cells, len(cells))

    @property
    def client(self) -> Any:
        """A plain client; it raises where Redis is unavailable."""
        self._client = self._client or self.redis.connect()
        return self._client

    def _submit(self) -> None:
        """Send as many jobs of each kind as have ended, all at once."""
        for kind in KINDS:
            if len(self.watch.open(kind)) > AT_ONCE // 2:
                continue
            for _ in range(AT_ONCE - len(self.watch.open(kind))):
                job = f"{kind.queue}:{kind.input}:{len(self.watch.jobs)}"
                fields = {"status": "new", "original_name": kind.input, "input_file_name": f"uploads/{kind.input}",
                          "model_name": MODEL[0], "model_version": MODEL[1], "scale": "1"}  # fmt: skip
                self.client.hset(job, mapping=fields)
                self.client.lpush(kind.queue, job)
                self.watch.jobs[job] = kind

    def _look(self) -> None:
        for job in self.watch.jobs:
            status, output = self.client.hmget(job, "status", "output_file_name")
            state = f"{status} {output}"
            before = self.watch.results.get(job)
            if before is None and status in ("done", "failed"):
                self.watch.results[job] = state
            elif before not in (None, state):
                self.watch.second.add(job)

    def _kill(self) -> bool:
        """Kill by the first entry of the plan that can be carried out now; False where none can."""
        if self.redis_is_due:
            self._restart_redis()
            return True
        holders = {queue: self.client.hgetall(f"redis-consumer:holders:{queue}") for queue in QUEUES}
        self.plan = self.plan or self._shuffled_plan()
        for target in self.plan:
            jobs = list(self._jobs_in(target.kind, target.phase, holders))
            found = self.dice.choice(jobs) if jobs else ""
            if found and self._kill_one(target.victim, found, holders):
                self.plan.remove(target)
                self.watch.kills[target.kind.name][target.phase][target.victim] += 1
                return True
        return False

    @property
    def redis_is_due(self) -> bool:
        """Whether it is Redis' turn."""
        return self._count() // REDIS_EVERY > self.watch.redis_kills

    def _count(self) -> int:
        return sum(count for phases in self.watch.kills.values() for each in phases.values() for count in each.values())

    def _jobs_in(self, kind: Kind, phase: str, holders: dict[str, dict[str, str]]) -> Iterator[str]:
        """Jobs that somebody runs in that phase; parents that wait in it where nobody does."""
        if phase == "children":
            yield from (job for job in holders[IMAGES] if kind.is_child(job))
            return
        for job in self.watch.open(kind):
            is_second = self.client.hexists(job, "next_phase")
            if job in holders[kind.queue]:
                if phase == ("second" if is_second else "first"):
                    yield job
            elif is_second and phase in ("pushed", "ended"):
                state, total = self.client.hmget(f"redis-consumer:family:{job}", "state", "total")
                is_waiting = state == "waiting" and self.client.scard(f"redis-consumer:open:{job}") == int(total)
                is_waiting &= not any(child in holders[IMAGES] for child in self._children_of(job))
                if phase == ("ended" if state == "gathering" else "pushed" if is_waiting else ""):
                    yield job

    def _children_of(self, job: str) -> list[str]:
        return str(self.client.hget(job, "children") or "").split(",")

    def _kill_one(self, victim: str, job: str, holders: dict[str, dict[str, str]]) -> bool:
        """Kill the process that runs a job, or any if none does."""
        holder = next((each[job] for each in holders.values() if job in each), "")
        able = [worker for worker in self.workers if worker.is_running and self._may_die(worker, holders)]
        if holder:
            able = [worker for worker in able if worker.name == holder.rpartition(":")[2]]
        pids = self.dice.choice(able).family() if able else []
        slots = [pid for pid in pids[1:] if not holder or pid == self.pids.get(job)]
        if not slots:
            return False
        # The slots of a supervisor that dies alone have to end by themselves.
        everybody = pids if self.dice.random() < 0.5 else pids[:1]
        for pid in [self.dice.choice(slots)] if victim == "slot" else everybody:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    def _may_die(self, worker: Worker, holders: dict[str, dict[str, str]]) -> bool:
        """Return whether none of a worker's jobs is in its last attempts."""
        own = (each.split(" ", 1) for queue in holders.values() for each in queue.values())
        return all(int(attempt) <= LAST_KILLED for attempt, place in own if place.rpartition(":")[2] == worker.name)

    def _revive(self) -> None:
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is not None:
                worker.start_again(self.dice.random() < 0.7)

    def _restart_redis(self) -> None:
        self.redis.send(signal.SIGKILL)
        self.redis.wait()
        self._client = None
        self.redis.start()
        self.redis.await_ready()
        self.watch.redis_kills += 1

    def _residue(self) -> list[str]:
        """What is left in lists, leases and families some time after the last result."""
        deadline = time.monotonic() + EMPTY_S
        left = ["?"]
        while left and time.monotonic() < deadline:
            time.sleep(0.3)
            self._look()
            self._revive()
            left = [f"{kind}: {job}" for kind in HASHES for queue in QUEUES
                    for job in self.client.hkeys(f"redis-consumer:{kind}:{queue}")]  # fmt: skip
            left += [key for kind in KEYS for key in self.client.keys(f"redis-consumer:{kind}:*")]
            left += [key for key in QUEUES if self.client.exists(key)] + self.client.keys("processing-*")
        return left

    def _figures(self) -> dict[str, Any]:
        jobs, states = self.watch.jobs, self.watch.results
        made = set(self.client.scan_iter(match=f"{IMAGES}:*", count=1000))
        completed = int(self.client.get(f"redis-consumer:completed:{IMAGES}") or 0)
        return {
            "submitted": {kind.name: sum(each is kind for each in jobs.values()) for kind in KINDS},
            "done": sum(state.startswith("done") for state in states.values()),
            "lost": len(jobs) - len(states),
            "wrong_ends": sum(not state.startswith("done") for state in states.values()),
            "second_results": len(self.watch.second),
            "wrong_results": sum(not self._is_right(job, state) for job, state in states.items()),
            "stray_children": len(made.difference(*map(self._children_of, jobs))),
            "child_completions_too_many": max(0, completed - sum(kind.children for kind in jobs.values())),
            "kills": {**self.watch.kills, "redis": self.watch.redis_kills},
            "phases_missed": self.watch.missed(),
        }

    def _is_right(self, job: str, state: str) -> bool:
        try:
            with zipfile.ZipFile(self.bucket.folder / state.partition(" ")[2]) as archive:
                return self.watch.jobs[job].is_right(archive, self.client.hgetall(job))
        except OSError:
            return False


def _serve() -> list[str]:
    consumers = {IMAGES: "SlowImage", **{kind.queue: kind.consumer for kind in KINDS}}
    return [text for queue, name in consumers.items() for text in ("--serve", f"chaos.slow_consumers:{name}={queue}")]


def measure(*, jobs: int = 20, seed: int | None = None, seconds: float | None = None) -> dict[str, Any]:
    """Send archives of 12 images, one of them bad, and movies through three workers while these and Redis are killed.

    Args:
        jobs: archives and movies, at least.
        seed: of kills; a random one by default.
        seconds: for which they come at most; 2 for each, and 60 at least, by default.

    Returns:
        Jobs ``submitted`` of each kind; ``done``, ``lost``; ``wrong_ends`` and ``wrong_results``; ``second_results``,
        whose end changed; ``stray_children``, of no parent; ``kills`` by kind, phase and victim; ``phases_missed``;
        ``broken``, which promises didn't hold.
    """
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-archives-{seed}-"))
    print(f"seed {seed}: {jobs} archives and movies; logs in {folder}", file=sys.stderr, flush=True)
    chaos = ArchiveChaos(folder, jobs=jobs, seed=seed, seconds=seconds or max(60.0, 2.0 * jobs))
    with embedded.stop_on_signals():
        try:
            figures = {**chaos.run(), "seed": seed}
        finally:
            chaos.end()
    names = ("lost", "wrong_ends", "second_results", "wrong_results", "stray_children", "residue",
             "child_completions_too_many")  # fmt: skip
    figures["broken"] = [name for name in names if figures[name]]
    if not figures["broken"]:
        clear(folder)
    return figures
