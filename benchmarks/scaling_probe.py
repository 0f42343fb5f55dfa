"""Measures job times on this machine, and how fast real workers do them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psutil
from simulation.costs import Costs, Sample
from simulation.engine import Sharing

from benchmarks.image_jobs import ImageWorker, Plane, Run, Work, image_worker
from benchmarks.model_server import Activity, ModelServer

BEFORE, AFTER = ("download", "preprocess"), ("postprocess", "upload")
#: Rarely, so that these requests to Redis don't change the figures.
POLL_S = 0.05
CORES = 2
REDIS_JOBS, REDIS_SLOTS = 3000, 8


@dataclass(frozen=True)
class Seen:
    """What was seen of real workers of one slot each.

    Attributes:
        run: the jobs.
        activity: of the model server.
        work: of slots and Redis.
        all_work_s: of the machine's cores that we use, other people's too.
        span_s: seconds in which all of this was seen.
        read_bytes: of an image.
        written_bytes: of a result.
        objects: in which a result is.
    """

    run: Run
    activity: Activity
    work: Work
    all_work_s: float
    span_s: float
    read_bytes: float
    written_bytes: float
    objects: float

    @property
    def others_cores(self) -> float:
        """How many of the machine's cores others used meanwhile, and the tools of the benchmark."""
        return max(0.0, (self.all_work_s - self.ours_s) / self.span_s)

    @property
    def ours_s(self) -> float:
        """Work of slots, Redis and model server for all jobs."""
        return self.work.slots_s + self.work.redis_s + self.activity.cpu_s

    @property
    def job_s(self) -> float:
        """The same for one job."""
        return self.ours_s / len(self.run.jobs)

    @property
    def cores(self) -> float:
        """How many cores they used."""
        return self.run.jobs_per_s * self.job_s


@contextmanager
def few_cores() -> Iterator[int]:
    """Until the block ends, this process and what it starts have two cores, where the system can do that.

    So cores are short with few workers, whatever the machine has.
    """
    this = psutil.Process()
    if not hasattr(this, "cpu_affinity"):
        yield psutil.cpu_count() or 1
        return
    all_cores = this.cpu_affinity()
    this.cpu_affinity(all_cores[:CORES])
    try:
        yield len(all_cores[:CORES])
    finally:
        this.cpu_affinity(all_cores)


def watch(group: ImageWorker, server: ModelServer, image: Plane, jobs: int) -> Seen:
    """Remove earlier results, run that many jobs with an image, and measure what all parts do.

    Raises:
        RuntimeError: a job failed, or took too long.
    """
    for path in _results(group):
        path.unlink()  # of earlier runs
    server.activity()
    before, machine_s, began = group.work(), _machine_s(), time.perf_counter()
    run = group.run(image, jobs)
    span_s, machine_s, after = time.perf_counter() - began, _machine_s() - machine_s, group.work()
    results = _results(group)
    return Seen(
        run,
        server.activity(),
        _difference(before, after),
        machine_s,
        span_s,
        _size(group.bucket / "uploads/image.tif"),
        sum(map(_size, results)) / jobs,
        len(results) / jobs,
    )


def costs_of(seen: Sequence[Seen]) -> Costs:
    """What an image costs, from runs of one worker with one slot, where no job waits for another."""
    jobs = sum(len(each.run.jobs) for each in seen)
    calls = sum(each.activity.calls for each in seen)
    server_s = sum(each.activity.cpu_s for each in seen) / calls
    waited_s = max(0.0, min(server_s, sum(map(_waited_for_server_s, seen)) / calls))
    return Costs(
        samples=[sample for each in seen for sample in _samples(each, waited_s)],
        redis_s=sum(each.work.redis_s for each in seen) / jobs,
        redis_trips=sum(each.work.redis_trips for each in seen) / jobs,
        calls=round(calls / jobs),
        tiles=round(sum(each.activity.tiles for each in seen) / jobs),
        server_s=waited_s,
        read_bytes=seen[0].read_bytes,
        written_bytes=fmean(each.written_bytes for each in seen),
        objects=fmean(each.objects for each in seen),
        slot_bytes=max(each.work.slot_bytes for each in seen),
        beside_s=server_s - waited_s,
    )


def sharing_of(alone: Sequence[Seen], filled: Sequence[Seen], crowded: Sequence[Seen], cores: int) -> Sharing:
    """What the cores of this machine lose where several slots want them.

    Args:
        alone: runs of one slot.
        filled: runs of as many slots as there are cores, with a model that takes no time: each slot always wants one.
        crowded: the same with several times as many.
        cores: how many there are.
    """
    slowdown = fmean(each.job_s for each in crowded) / fmean(each.job_s for each in alone)
    most, least = (Sharing(misplaced).busy(cores, cores) for misplaced in (0.0, 1.0))
    idle = most - fmean(each.cores for each in filled)
    misplaced = idle / (most - least) if most > least else 0.0
    return Sharing(min(1.0, max(0.0, misplaced)), max(1.0, slowdown))


def redis_work_s(server: ModelServer, image: Plane) -> float:
    """Work of Redis for a job where it is kept busy: it then answers several slots at a time, and each costs less."""
    consumer = "benchmarks.consumers:Reporting"
    with image_worker(server, slots=REDIS_SLOTS, poll_s=POLL_S, CONSUMER_TYPE=consumer) as group:
        before = group.work()
        group.run(image, REDIS_JOBS)
        return _difference(before, group.work()).redis_s / REDIS_JOBS


def _waited_for_server_s(seen: Seen) -> float:
    """Seconds of all calls in which neither the slot nor the model worked, so that it was the server's turn."""
    calls_s, slot_s = sum(seen.run.seconds("prediction_time")), sum(seen.run.seconds("prediction_cpu"))
    return calls_s - slot_s - seen.activity.busy_s


def _samples(seen: Seen, server_s: float) -> list[Sample]:
    run, jobs = seen.run, len(seen.run.jobs)
    seconds = {
        stage: list(zip(run.seconds(f"{stage}_time"), run.seconds(f"{stage}_cpu"), strict=True))
        for stage in (*BEFORE, "prediction", *AFTER)
    }
    model_s = (seen.activity.busy_s + server_s * seen.activity.calls) / jobs
    # What lies between the end of a job and the start of the next is in no stage.
    between_s = max(0.0, 1 / run.jobs_per_s - fmean(run.seconds("total_time")))
    stages_work_s = sum(work for stage in seconds.values() for _, work in stage)
    between_work_s = max(0.0, (seen.work.slots_s - stages_work_s) / jobs)
    # Redis is a station of its own, so waiting for it is no waiting here.
    redis_s = seen.work.redis_s / jobs / 2
    samples = []
    for number in range(jobs):
        before_s, before_work_s = _summed(seconds, BEFORE, number)
        after_s, after_work_s = _summed(seconds, AFTER, number)
        calls_s, calls_work_s = seconds["prediction"][number]
        samples.append(
            Sample(
                before_work_s,
                max(0.0, before_s - before_work_s - redis_s),
                calls_work_s,
                max(0.0, calls_s - calls_work_s - model_s),
                after_work_s + between_work_s,
                max(0.0, after_s + between_s - after_work_s - between_work_s - redis_s),
            )
        )
    return samples


def _summed(seconds: dict[str, list[tuple[float, float]]], stages: Sequence[str], number: int) -> tuple[float, float]:
    times, works = zip(*(seconds[stage][number] for stage in stages), strict=True)
    return sum(times), sum(works)


def _difference(before: Work, after: Work) -> Work:
    return Work(
        after.slots_s - before.slots_s,
        after.redis_s - before.redis_s,
        after.redis_trips - before.redis_trips,
        max(after.slot_bytes, before.slot_bytes),
    )


def _machine_s() -> float:
    this = psutil.Process()
    cores = this.cpu_affinity() if hasattr(this, "cpu_affinity") else range(psutil.cpu_count() or 1)
    times = psutil.cpu_times(percpu=True)
    # Where a container has a numbering of its own, all of its cores.
    own = [times[core] for core in cores] if max(cores) < len(times) else times
    return float(sum(getattr(each, kind, 0) for each in own for kind in ("user", "system", "nice", "irq", "softirq")))


def _results(group: ImageWorker) -> list[Path]:
    return [path for path in (group.bucket / "output").rglob("*") if path.is_file()]


def _size(path: Path) -> int:
    return path.stat().st_size
