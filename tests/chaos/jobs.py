"""Checks with a ledger that a queue loses no job and shows no second result while every part of it is killed."""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from chaos.consumer import STAGES
from chaos.faults import Injector
from chaos.ledger import Reader, history
from chaos.metrics import scraped
from chaos.plan import Fault, plan
from chaos.scene import INPUT, QUEUE, Scene
from chaos.servers import SLOTS, clear
from redis_consumer.cli import embedded

#: Seconds for each job by default, and for a whole run at least.
SECONDS_A_JOB, LEAST_S = 0.22, 35.0
#: Seconds after the last fault in which every job must end; a dependency's pause grows to 30 s.
DRAIN_S = 120.0
#: Seconds in which lists and leases must be empty after the last result.
EMPTY_S = 15.0
LOOK_EVERY_S = 0.03
STAGE_MS = (10, 300)
#: One of this many jobs has no input, and must fail.
BAD_EVERY = 50
#: Share of submissions that a producer doesn't confirm by ``WAIT 1``, with Sentinel.
CARELESS_SHARE = 0.1
SHOWN, HISTORY_LINES = 3, 40


@dataclass
class Submission:
    """One job as its producer submits it.

    Attributes:
        job: its id.
        at_s: seconds after the start.
        fields: its hash.
        is_bad: whether its input is missing, so that it must fail.
        is_careless: whether the producer doesn't wait for the replica.
    """

    job: str
    at_s: float
    fields: dict[str, str]
    is_bad: bool
    is_careless: bool


@dataclass
class Producer:
    """Submits jobs when they are due, and remembers which of them Redis has acknowledged.

    Attributes:
        left: what is still to be submitted, the next one last.
        submitted: jobs that were acknowledged.
        unconfirmed: those of them that no replica had at the time.
    """

    scene: Scene
    left: list[Submission]
    submitted: dict[str, Submission] = field(default_factory=dict)
    unconfirmed: set[str] = field(default_factory=set)

    def submit(self, until_s: float) -> None:
        """Submit what is due; try again at the next call if Redis is unavailable."""
        while self.left and self.left[-1].at_s <= until_s:
            submission = self.left[-1]
            try:
                is_confirmed = self._push(submission)
            except redis.RedisError:
                self.scene.disconnect()
                return
            self.left.pop()
            self.submitted[submission.job] = submission
            self.scene.watcher.jobs.append(submission.job)
            if not is_confirmed:
                self.unconfirmed.add(submission.job)
            self.scene.ledger.note("submitted", job=submission.job, bad=submission.is_bad, confirmed=is_confirmed)

    def _push(self, submission: Submission) -> bool:
        client = self.scene.client
        client.hset(submission.job, mapping=submission.fields)
        client.lpush(QUEUE, submission.job)
        if not self.scene.is_sentinel:
            return True
        return not submission.is_careless and client.wait(1, 300) >= 1


def submissions(seed: int, jobs: int, seconds: float) -> list[Submission]:
    """The jobs of a seed, the first one last: at random moments, half of them of each style."""
    dice = random.Random(f"jobs {seed}")
    moments = sorted((dice.uniform(0, seconds) for _ in range(jobs)), reverse=True)
    return [_submission(dice, jobs - index, at_s) for index, at_s in enumerate(moments)]


def _submission(dice: random.Random, number: int, at_s: float) -> Submission:
    is_bad = number % BAD_EVERY == 0
    fields = {
        "status": "new",
        "input_file_name": f"uploads/missing-{number}.npy" if is_bad else INPUT,
        "stages_ms": ",".join(str(dice.randint(*STAGE_MS)) for _ in STAGES),
        "style": "update_key" if number % 2 else "return",
    }
    return Submission(f"{QUEUE}:cells.npy:{number}", at_s, fields, is_bad, dice.random() < CARELESS_SHARE)


def measure(
    *,
    jobs: int = 100,
    seed: int | None = None,
    seconds: float | None = None,
    is_sentinel: bool = False,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Run jobs under a seeded schedule of faults, and count their outcomes.

    Args:
        jobs: how many.
        seed: of the schedule and the jobs; a random one by default.
        seconds: for which jobs and faults come; 0.22 for each job by default.
        is_sentinel: a master, a replica and a Sentinel, with one failover, instead of a Redis that restarts.
        folder: an empty folder to leave logs and ledger in; by default one that is removed if all promises were kept.

    Returns:
        The figures; ``broken`` names the promises that didn't hold, ``late`` those of time (the machine matters).
    """
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    seconds = seconds or max(LEAST_S, SECONDS_A_JOB * jobs)
    kept = folder or Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    faults = plan(seed, seconds, is_sentinel=is_sentinel)
    _say(f"seed {seed}: {jobs} jobs and {len(faults)} faults in {seconds:g} s; logs and ledger in {kept}")
    started = time.monotonic()
    with embedded.stop_on_signals(), Scene(kept, is_sentinel=is_sentinel) as scene:
        producer, injector = _run(scene, submissions(seed, jobs, seconds), faults)
        residue = _residue(scene)
        missing = _missing_objects(scene)
        told = scraped(scene.workers[0].settings, QUEUE, kept)
    figures = {**_figures(scene, producer, injector), "seed": seed, "missing_objects": missing, "residue": len(residue)}
    figures["metrics"] = told
    figures["metrics_differ"] = int(told != {"done": figures["done"], "failed": figures["failed"], "dead": 0})
    figures["wall_s"] = round(time.monotonic() - started, 1)
    figures["broken"] = _broken(figures)
    figures["late"] = ["slot_recovery_max_s"] if scene.watcher.seen.late else []
    _tell(kept, scene, producer, figures, residue)
    if folder is None and not figures["broken"] and not figures["late"]:
        clear(kept)
    return figures


def _run(scene: Scene, jobs: list[Submission], faults: list[Fault]) -> tuple[Producer, Injector]:
    """Submit jobs, cause and end faults, and look, until every job has its result or the time is up."""
    _await_workers(scene)
    producer, injector = Producer(scene, jobs), Injector(scene, faults)
    started, deadline = time.monotonic(), None
    while deadline is None or time.monotonic() < deadline:
        producer.submit(time.monotonic() - started)
        injector.tick()
        is_seen = scene.look()
        if injector.is_over and not producer.left:
            deadline = deadline or time.monotonic() + DRAIN_S
            if is_seen and len(scene.watcher.seen.results) >= len(producer.submitted):
                break
        time.sleep(LOOK_EVERY_S)
    return producer, injector


def _await_workers(scene: Scene, timeout_s: float = 60.0) -> None:
    """Wait until every slot is blocked in a claim."""
    deadline = time.monotonic() + timeout_s
    while sum(entry["cmd"] == "blmove" for entry in scene.client.client_list()) < SLOTS * len(scene.workers):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the workers don't start; see {scene.folder}")
        time.sleep(0.05)


def _residue(scene: Scene) -> list[str]:
    """What is left in lists and leases some time after the last result."""
    deadline = time.monotonic() + EMPTY_S
    left = ["Redis is unavailable"]
    while left and time.monotonic() < deadline:
        scene.look()
        with contextlib.suppress(redis.RedisError):
            left = list(_entries(scene.client))
        time.sleep(0.2)
    return left


def _entries(client: Any) -> Iterator[str]:
    for key in [QUEUE, *client.scan_iter(match=f"processing-{QUEUE}:*")]:
        yield from (f"{key}: {job}" for job in client.lrange(key, 0, -1))
    for kind in ("holders", "attempts"):
        yield from (f"{kind}: {job}" for job in client.hkeys(f"redis-consumer:{kind}:{QUEUE}"))
    yield from (f"leases: {job}" for job in client.zrange(f"redis-consumer:leases:{QUEUE}", 0, -1))


def _missing_objects(scene: Scene) -> int:
    """Results that say done and have no object."""
    outputs = [state.split(" ") for state in scene.watcher.seen.results.values()]
    return sum(status == "done" and not (scene.bucket.folder / key).is_file() for status, key in outputs)


def _figures(scene: Scene, producer: Producer, injector: Injector) -> dict[str, Any]:
    seen, counts = scene.watcher.seen, injector.counts
    statuses = [state.split(" ")[0] for state in seen.results.values()]
    absent = [job for job in producer.submitted if job not in seen.results]
    bad = {job for job, submission in producer.submitted.items() if submission.is_bad}
    failed = {job for job, state in seen.results.items() if state.startswith("failed")}
    recoveries_s = seen.recoveries_s
    return {
        "submitted": len(producer.submitted),
        "done": statuses.count("done"),
        "failed": statuses.count("failed"),
        "bad_inputs": len(bad),
        "wrong_ends": len(failed ^ (bad & set(seen.results))),
        "lost": sum(job not in producer.unconfirmed for job in absent) + len(producer.left),
        "duplicate_results": len(seen.second),
        "double_completions": sum(count > 1 for count in seen.settled.values()),
        "reruns": sum(count - 1 for count in seen.starts.values()),
        "slot_recovery_max_s": _rounded(max, recoveries_s["slot"]),
        "recovery_p50_s": _rounded(statistics.median, recoveries_s["worker"]),
        "recovery_max_s": _rounded(max, recoveries_s["worker"]),
        "disturbed_max_s": _rounded(max, recoveries_s["disturbed"]),
        "recoveries": {kind: len(times) for kind, times in sorted(recoveries_s.items())},
        "not_recovered": len(scene.watcher.stranded),
        "kills": sum(counts[kind] for kind in ("slot", "worker", "supervisor")),
        "redis_restarts": counts["redis-term"] + counts["redis-kill"],
        "failovers": counts["failover"],
        "faults": dict(sorted(counts.items())),
        "orphans": injector.orphans,
        "unconfirmed_submissions": len(producer.unconfirmed),
        "unconfirmed_submissions_lost": sum(job in producer.unconfirmed for job in absent),
        "unconfirmed_results_lost": seen.unconfirmed_lost,
    }


def _rounded(function: Any, times_s: list[float]) -> float | None:
    return round(function(times_s), 2) if times_s else None


def _broken(figures: dict[str, Any]) -> list[str]:
    """Which promises didn't hold."""
    names = ["lost", "duplicate_results", "missing_objects", "wrong_ends", "orphans", "residue", "metrics_differ"]
    if not figures["unconfirmed_results_lost"]:
        names.append("double_completions")
    return [name for name in names if figures[name]]


def _tell(folder: Path, scene: Scene, producer: Producer, figures: dict[str, Any], residue: list[str]) -> None:
    """Say what broke or was late, with the history of some of the jobs."""
    missed = figures["broken"] + figures["late"]
    if not missed:
        return
    seen = scene.watcher.seen
    bad = {job for job, submission in producer.submitted.items() if submission.is_bad}
    failed = {job for job, state in seen.results.items() if state.startswith("failed")}
    jobs = {
        "lost": [job for job in producer.submitted if job not in seen.results],
        "duplicate_results": sorted(set(seen.second)),
        "wrong_ends": sorted(failed ^ (bad & set(seen.results))),
        "double_completions": [job for job, count in seen.settled.items() if count > 1],
        "slot_recovery_max_s": seen.late,
        "residue": sorted({entry.split(": ", 1)[1] for entry in residue if ": " in entry}),
    }
    _say(f"{'BROKEN' if figures['broken'] else 'LATE'}: {', '.join(missed)}; see {folder}")
    for entry in residue[:SHOWN]:
        _say(f"left over: {entry}")
    reader = Reader(folder / "ledger.jsonl")
    notes = reader.new()
    reader.close()
    for promise in missed:
        for job in jobs.get(promise, [])[:SHOWN]:
            _say(f"{promise}: {job}\n{history(notes, job, HISTORY_LINES)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
