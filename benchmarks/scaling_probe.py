"""What do jobs take on this machine, and how fast do real workers do them?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psutil

from benchmarks.image_jobs import Plane, Run, Work, image_worker
from benchmarks.model_server import Activity, ModelServer
from benchmarks.scaling_costs import Costs, Sample

BEFORE, AFTER = ("download", "preprocess"), ("postprocess", "upload")
#: Seldom: what looking costs Redis mustn't count.
POLL_S = 0.05
WARM_UP = 10
REDIS_JOBS, REDIS_SLOTS = 3000, 8


@dataclass(frozen=True)
class Seen:
    """What was seen of real workers of one slot each.

    Attributes:
        run: the jobs.
        activity: of the model server.
        work: of slots and Redis.
        all_work_s: of the whole machine, other people's too.
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
        ours_s = self.work.slots_s + self.work.redis_s + self.activity.cpu_s
        return max(0.0, (self.all_work_s - ours_s) / self.span_s)


def watch(server: ModelServer, image: Plane, *, workers: int, jobs: int) -> Seen:
    """Run that many jobs with an image, and look at what everybody does.

    Raises:
        RuntimeError: a job failed, or took too long.
    """
    consumer = "benchmarks.consumers:Clocked"
    with image_worker(server, workers=workers, poll_s=POLL_S, CONSUMER_TYPE=consumer) as group:
        group.run(image, WARM_UP * workers)
        server.activity()
        before, machine_s, began = group.work(), _machine_s(), time.perf_counter()
        run = group.run(image, jobs)
        span_s, machine_s, after = time.perf_counter() - began, _machine_s() - machine_s, group.work()
        results = [path for path in (group.bucket / "output").rglob("*") if path.is_file()]
        made = jobs + WARM_UP * workers
        return Seen(
            run,
            server.activity(),
            _difference(before, after),
            machine_s,
            span_s,
            _size(group.bucket / "uploads/image.tif"),
            sum(map(_size, results)) / made,
            len(results) / made,
        )


def costs_of(seen: Seen) -> Costs:
    """What an image costs, from a run with one worker and one slot, where nobody waits for anybody."""
    jobs, work, activity = len(seen.run.jobs), seen.work, seen.activity
    return Costs(
        samples=_samples(seen),
        redis_s=work.redis_s / jobs,
        redis_trips=work.redis_trips / jobs,
        calls=round(activity.calls / jobs),
        tiles=round(activity.tiles / jobs),
        server_s=activity.cpu_s / activity.calls,
        read_bytes=seen.read_bytes,
        written_bytes=seen.written_bytes,
        objects=seen.objects,
        slot_bytes=work.slot_bytes,
    )


def redis_work_s(server: ModelServer, image: Plane) -> float:
    """Work of Redis for a job where it is kept busy: it then answers several slots at a time, and each costs less."""
    consumer = "benchmarks.consumers:Reporting"
    with image_worker(server, slots=REDIS_SLOTS, poll_s=POLL_S, CONSUMER_TYPE=consumer) as group:
        before = group.work()
        group.run(image, REDIS_JOBS)
        return _difference(before, group.work()).redis_s / REDIS_JOBS


def _samples(seen: Seen) -> list[Sample]:
    run, jobs = seen.run, len(seen.run.jobs)
    seconds = {
        stage: list(zip(run.seconds(f"{stage}_time"), run.seconds(f"{stage}_cpu"), strict=True))
        for stage in (*BEFORE, "prediction", *AFTER)
    }
    model_s = (seen.activity.busy_s + seen.activity.cpu_s) / jobs
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
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + getattr(times, "irq", 0) + getattr(times, "softirq", 0))


def _size(path: Path) -> int:
    return path.stat().st_size
