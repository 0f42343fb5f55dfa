"""Do archives lose images, or show two results, while workers and Redis are killed in each phase?"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks.chaos_servers import Bucket, Redis, Worker, clear
from redis_consumer.cli import embedded

QUEUE, ZIPS = "images", "images-zip"
WORKERS = 3
IMAGES = 12
BAD = 7
KILL_EVERY_S = 1.2
REDIS_EVERY_S = 15.0
LOOK_S = 0.03
#: Seconds after the last kill in which every archive must end.
DRAIN_S = 120.0
EMPTY_S = 15.0
#: Where a worker is killed: status of an archive, or the queue of a job that runs.
PHASES = ("unpacking", "image", "gathering")
#: What the fields of these kinds are empty of at the end.
HASHES, KEYS = ("holders", "attempts"), ("family", "children", "open", "staged", "waiting")
#: A run is killed in its first attempts only: what is killed in its last one is failed, as promised.
LAST_KILLED = 3


@dataclass
class Watch:
    """What the outside saw.

    Attributes:
        results: status and object of each archive that has ended.
        second: archives whose end changed.
        kills: how often in which phase.
    """

    results: dict[str, str] = field(default_factory=dict)
    second: set[str] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)


class ArchiveChaos:
    """Some archives, three workers for both queues, and a plan by a seed.

    Args:
        folder: empty, for logs and data.
        jobs: archives.
        seed: of the plan.
        seconds: for which archives and kills come.
    """

    def __init__(self, folder: Path, *, jobs: int, seed: int, seconds: float) -> None:
        self.dice = random.Random(f"archives {seed}")
        self.seconds = seconds
        self.bucket = Bucket(folder / "bucket")
        self.redis = Redis(folder / "redis", "redis")
        self.watch = Watch()
        self.due_s = sorted((self.dice.uniform(0, seconds) for _ in range(jobs)), reverse=True)
        self.submitted: list[str] = []
        settings = {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis.port),
            "REDIS_TIMEOUT": "0.1",
            "STORAGE_BUCKET": self.bucket.folder.as_uri(),
            "MODEL_SERVER": "onnx://",
            "TMPDIR": str(folder),
        }
        self.workers = [Worker(folder, number, settings, arguments=_serve()) for number in range(WORKERS)]
        self._client: Any = None

    def run(self) -> dict[str, Any]:
        """Run it to the end and give the figures."""
        self._start()
        begun = time.monotonic()
        kills_s = self._moments(KILL_EVERY_S)
        restarts_s = self._moments(REDIS_EVERY_S)
        while time.monotonic() - begun < self.seconds + DRAIN_S:
            now_s = time.monotonic() - begun
            with contextlib.suppress(redis.RedisError):
                self._submit(now_s)
                self._look()
                if kills_s and now_s >= kills_s[-1] and self._kill(self.dice.choice(PHASES), now_s - kills_s[-1] > 1):
                    kills_s.pop()
            if restarts_s and now_s >= restarts_s[-1]:
                restarts_s.pop()
                self._restart_redis()
            self._revive()
            if not (self.due_s or kills_s) and len(self.watch.results) == len(self.submitted):
                break
            time.sleep(LOOK_S)
        residue = self._residue()
        return {**self._figures(), "residue": len(residue), "left": residue[:5]}

    def end(self) -> None:
        """End every process by its id."""
        for process in [*self.workers, self.redis]:
            process.end()

    def _start(self) -> None:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from support import onnx_models

        onnx_models.save(self.bucket.folder / "models", "Scaling", 1, onnx_models.scaling(2.0))
        with zipfile.ZipFile(self.bucket.folder / "uploads/plate.zip", "w") as archive:
            for number in range(IMAGES):
                buffer = io.BytesIO()
                np.save(buffer, np.full((16, 16), number, np.float32))
                archive.writestr(f"well {number % 3}/{number}.npy", b"none" if number == BAD else buffer.getvalue())
        self.redis.start()
        self.redis.await_ready()
        for worker in self.workers:
            worker.start_again(False)

    def _moments(self, every_s: float) -> list[float]:
        count = max(1, round(self.seconds / every_s))
        return sorted((self.dice.uniform(2, self.seconds) for _ in range(count)), reverse=True)

    @property
    def client(self) -> Any:
        """A plain client; it raises where Redis is away."""
        self._client = self._client or self.redis.connect()
        return self._client

    def _submit(self, now_s: float) -> None:
        while self.due_s and self.due_s[-1] <= now_s:
            job = f"{ZIPS}:plate.zip:{len(self.submitted)}"
            fields = {"status": "new", "original_name": "plate.zip", "input_file_name": "uploads/plate.zip",
                      "model_name": "Scaling", "model_version": "1", "scale": "1"}  # fmt: skip
            self.client.hset(job, mapping=fields)
            self.client.lpush(ZIPS, job)
            self.submitted.append(job)
            self.due_s.pop()

    def _look(self) -> None:
        for job in self.submitted:
            status, output = self.client.hmget(job, "status", "output_file_name")
            state = f"{status} {output}"
            before = self.watch.results.get(job)
            if before is None and status in ("done", "failed"):
                self.watch.results[job] = state
            elif before not in (None, state):
                self.watch.second.add(job)

    def _kill(self, phase: str, is_late: bool) -> bool:
        """Kill who is in that phase, or in any where none is for too long; False for nobody."""
        for found in (phase, *(PHASES if is_late else ())):
            holders = [holder for holder in self._holders(found) if int(holder.split(" ", 1)[0]) <= LAST_KILLED]
            if not holders:
                continue
            name = self.dice.choice(holders).rpartition(":")[2]
            worker = next((each for each in self.workers if each.name == name and each.is_running), None)
            if worker is not None:
                self._kill_worker(worker, found)
                return True
        return is_late and not self.watch.results.keys() ^ set(self.submitted) and not self.due_s

    def _holders(self, phase: str) -> list[str]:
        queue = QUEUE if phase == "image" else ZIPS
        holders = self.client.hgetall(f"redis-consumer:holders:{queue}")
        if phase == "image":
            return list(holders.values())
        is_second = phase == "gathering"
        return [holder for job, holder in holders.items() if self.client.hexists(job, "next_phase") == is_second]

    def _kill_worker(self, worker: Worker, phase: str) -> None:
        """Either all of it, or one of its slots."""
        family = worker.family()
        pids = family if self.dice.random() < 0.4 or len(family) < 2 else [self.dice.choice(family[1:])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.watch.kills[phase] += 1

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
        self.watch.kills["redis"] += 1

    def _residue(self) -> list[str]:
        """What is left in lists, leases and families some time after the last result."""
        deadline = time.monotonic() + EMPTY_S
        left = ["?"]
        while left and time.monotonic() < deadline:
            time.sleep(0.3)
            self._look()
            self._revive()
            left = [f"{kind}: {job}" for kind in HASHES for queue in (QUEUE, ZIPS)
                    for job in self.client.hkeys(f"redis-consumer:{kind}:{queue}")]  # fmt: skip
            left += [key for kind in KEYS for key in self.client.keys(f"redis-consumer:{kind}:*")]
            left += [key for key in (QUEUE, ZIPS) if self.client.exists(key)] + self.client.keys("processing-*")
        return left

    def _figures(self) -> dict[str, Any]:
        states = self.watch.results
        children = [set((self.client.hget(job, "children") or "").split(",")) for job in self.submitted]
        made = set(self.client.scan_iter(match=f"{QUEUE}:*", count=1000))
        completed = int(self.client.get(f"redis-consumer:completed:{QUEUE}") or 0)
        return {
            "submitted": len(self.submitted),
            "done": sum(state.startswith("done") for state in states.values()),
            "lost": len(self.submitted) - len(states),
            "wrong_ends": sum(not state.startswith("done") for state in states.values()),
            "second_results": len(self.watch.second),
            "wrong_results": sum(self._is_wrong(job, state) for job, state in states.items()),
            "stray_children": len(made - set().union(*children)),
            "child_completions_too_many": max(0, completed - IMAGES * len(self.submitted)),
            "kills": dict(self.watch.kills),
        }

    def _is_wrong(self, job: str, state: str) -> bool:
        """Whether the result lacks an image, or has one too many, or the failed one isn't named."""
        key = state.partition(" ")[2]
        failures = self.client.hget(job, "failures") or ""
        try:
            with zipfile.ZipFile(self.bucket.folder / key) as archive:
                names = sorted(archive.namelist())
        except OSError:
            return True
        expected = [f"well {n % 3}/{n}_feature_0.tif" for n in range(IMAGES) if n != BAD] + ["summary.csv"]
        return names != sorted(expected) or failures.count("=") != 1 or f"{BAD}.npy" not in failures


def _serve() -> list[str]:
    consumers = {QUEUE: "benchmarks.chaos_slow:SlowImage", ZIPS: "benchmarks.chaos_slow:SlowZip"}
    return [text for queue, kind in consumers.items() for text in ("--serve", f"{kind}={queue}")]


def measure(*, jobs: int = 20, seed: int | None = None, seconds: float | None = None) -> dict[str, Any]:
    """Send archives of 12 images, one of them bad, through three workers while these and Redis are killed.

    Args:
        jobs: archives.
        seed: of archives and kills; a random one by default.
        seconds: for which they come; 1.5 for each archive, and 30 at least, by default.

    Returns:
        Archives ``submitted``, ``done``, ``lost``; ``wrong_ends`` and ``wrong_results``; ``second_results``, whose end
        changed; ``stray_children``, of no archive; ``kills`` by phase; ``broken``, which promises didn't hold.
    """
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-archives-{seed}-"))
    print(f"seed {seed}: {jobs} archives; logs in {folder}", file=sys.stderr, flush=True)
    chaos = ArchiveChaos(folder, jobs=jobs, seed=seed, seconds=seconds or max(30.0, 1.5 * jobs))
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
