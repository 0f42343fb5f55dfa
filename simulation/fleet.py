"""Simulates images on their way through a fleet of workers, from the queue to their end."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simulation.costs import Costs, Sample
from simulation.engine import Cores, Line, Pause, Process, Servers, Simulation, Station, Together
from simulation.parts import Autoscaler, Fleet


@dataclass(frozen=True)
class Outcome:
    """The outcome of all images.

    Attributes:
        images_per_s: from the first arrival to the last end.
        drain_s: the same time, in seconds.
        wait_p50_s: from arrival to claim, half of the images.
        wait_p99_s: 99 of 100.
        result_p50_s: from arrival to result, half of the images.
        result_p99_s: 99 of 100.
        used_pct: part of its time in which each station worked, by name.
        worker_hours: time that workers were there.
    """

    images_per_s: float
    drain_s: float
    wait_p50_s: float
    wait_p99_s: float
    result_p50_s: float
    result_p99_s: float
    used_pct: dict[str, float]
    worker_hours: float


def simulate(
    costs: Costs, fleet: Fleet, arrivals: Sequence[float], *, seed: int, tell: Callable[[int], None] | None = None
) -> Outcome:
    """Send images through a fleet.

    Args:
        costs: of an image.
        fleet: what runs.
        arrivals: seconds at which images come, in order.
        seed: the same one gives the same outcome.
        tell: called now and then with the number of images that are done.
    """
    return _Run(costs, fleet, arrivals, random.Random(seed), tell or (lambda _: None)).outcome()


#: Images between two calls of `tell`.
TELL_EVERY = 10_000


class _Run:
    def __init__(
        self, costs: Costs, fleet: Fleet, arrivals: Sequence[float], dice: random.Random, tell: Callable[[int], None]
    ) -> None:
        self._costs, self._fleet, self._arrivals, self._dice, self._tell = costs, fleet, arrivals, dice, tell
        self._clock = clock = Simulation()
        self._line = Line()
        self._pause, self._together = Pause(clock), Together(clock)
        shared = Cores(clock, fleet.cores, costs.sharing) if fleet.is_one_machine else None
        self._shared = shared
        self._redis = shared or Servers(clock, after_s=fleet.trip_s * costs.redis_trips / 2)
        self._server_cores: Station = shared or self._pause
        self._gpus = Servers(clock, fleet.gpus, after_s=0.0 if fleet.is_one_machine else fleet.trip_s)
        bucket = fleet.bucket
        latency_s = bucket.latency_s if bucket else 0.0
        self._reads, self._writes = Servers(clock, after_s=latency_s), Servers(clock, after_s=latency_s)
        self._bytes_in, self._bytes_out = Servers(clock), Servers(clock)
        self._work: list[Cores | Pause] = []
        self._waits, self._results, self._done, self._ended = array("d"), array("d"), 0, 0.0
        #: Slots that are there, and seconds of those that were, less the moments at which all came.
        self._slots, self._slot_s, self._busy_slot_s = 0, 0.0, 0.0

    def outcome(self) -> Outcome:
        scaler = self._fleet.autoscaler
        for _ in range(scaler.least if scaler else self._fleet.workers):
            self._start_worker(0.0)
        if scaler:
            self._clock.start(self._scale(scaler))
        self._clock.at(self._arrivals[0], self._arrive, 0)
        self._clock.run()
        span_s = self._ended - self._arrivals[0]
        slot_s = self._slot_s + self._slots * self._ended
        wait_p50_s, wait_p99_s = np.percentile(self._waits, [50, 99]).tolist()
        result_p50_s, result_p99_s = np.percentile(self._results, [50, 99]).tolist()
        return Outcome(
            images_per_s=len(self._arrivals) / span_s,
            drain_s=span_s,
            wait_p50_s=wait_p50_s,
            wait_p99_s=wait_p99_s,
            result_p50_s=result_p50_s,
            result_p99_s=result_p99_s,
            used_pct=self._used_pct(span_s, slot_s),
            worker_hours=slot_s / self._fleet.slots / 3600,
        )

    def _used_pct(self, span_s: float, slot_s: float) -> dict[str, float]:
        fleet = self._fleet
        used = {"gpus": self._gpus.busy_s / fleet.gpus / span_s, "slots": self._busy_slot_s / slot_s}
        if self._shared is not None:
            used["cores"] = self._shared.busy_s / fleet.cores / span_s
        else:
            used["cores"] = sum(work.busy_s for work in self._work) / (slot_s / fleet.slots * fleet.cores)
            used["redis"] = self._redis.busy_s / span_s
        if fleet.bucket:
            lines = {"reads": self._reads, "writes": self._writes, "in": self._bytes_in, "out": self._bytes_out}
            used |= {f"bucket_{name}": line.busy_s / span_s for name, line in lines.items()}
        return {name: round(100 * part, 2) for name, part in used.items()}

    def _arrive(self, number: int) -> None:
        self._line.put(self._arrivals[number])
        if number + 1 < len(self._arrivals):
            self._clock.at(self._arrivals[number + 1], self._arrive, number + 1)

    def _start_worker(self, time: float) -> None:
        fleet = self._fleet
        # A slot that has a core for itself waits for none.
        is_alone = fleet.slots == 1 and fleet.cores >= 1
        own = Pause(self._clock) if is_alone else Cores(self._clock, fleet.cores, self._costs.sharing)
        self._work.append(own)
        for _ in range(fleet.slots):
            self._clock.start(self._slot(self._shared or own), time)

    def _scale(self, scaler: Autoscaler) -> Process:
        workers = scaler.least
        while self._done < len(self._arrivals):
            yield self._pause, scaler.interval_s
            jobs = len(self._line.things) + len(self._waits) - self._done
            wanted = math.ceil(jobs / scaler.jobs_per_worker)
            wanted = min(max(wanted, scaler.least), self._fleet.workers)
            for _ in range(wanted - workers):
                self._start_worker(self._clock.now + scaler.delay_s)
            # Whichever slots look for a job next find that they are to end; so no job is cut short.
            for _ in range((workers - wanted) * self._fleet.slots):
                self._line.put(None, is_next=True)
            workers = wanted

    def _slot(self, work: Station) -> Process:
        clock, samples, total = self._clock, self._costs.samples, len(self._arrivals)
        if self._done == total:
            return
        self._slot_s -= clock.now
        self._slots += 1
        while (arrived := (yield self._line, None)) is not None:
            claimed = clock.now
            self._waits.append(claimed - arrived)
            yield from self._job(work, samples[int(self._dice.random() * len(samples))])
            self._results.append(clock.now - arrived)
            self._busy_slot_s += clock.now - claimed
            self._done += 1
            if self._done % TELL_EVERY == 0:
                self._tell(self._done)
            if self._done == total:
                self._ended = clock.now
        self._slot_s += clock.now
        self._slots -= 1

    def _job(self, work: Station, sample: Sample) -> Process:
        costs, bucket = self._costs, self._fleet.bucket
        yield self._redis, costs.redis_s / 2
        if bucket:
            yield self._reads, 1 / bucket.reads_per_s
            yield self._bytes_in, costs.read_bytes / bucket.bytes_per_s
        if sample.before_wait_s:
            yield self._pause, sample.before_wait_s
        yield work, sample.before_work_s
        yield from self._calls(work, sample)
        yield work, sample.after_work_s
        if sample.after_wait_s:
            yield self._pause, sample.after_wait_s
        if bucket:
            yield self._writes, costs.objects / bucket.writes_per_s
            yield self._bytes_out, costs.written_bytes / bucket.bytes_per_s
        yield self._redis, costs.redis_s / 2

    def _calls(self, work: Station, sample: Sample) -> Process:
        calls = self._costs.calls
        lanes = min(calls, self._fleet.calls_in_flight)
        if lanes == 1:
            yield from self._lane(work, sample, iter(range(calls)))
        else:
            left = iter(range(calls))
            yield self._together, [self._lane(work, sample, left) for _ in range(lanes)]

    def _lane(self, work: Station, sample: Sample, left: Iterator[int]) -> Process:
        """Calls, one after the other, as long as there are any left."""
        costs, fleet = self._costs, self._fleet
        for _ in left:
            if self._shared is not None and costs.beside_s:
                self._clock.start(_visit(self._shared, costs.beside_s), self._clock.now)
            yield work, sample.calls_work_s / costs.calls
            yield self._server_cores, costs.server_s
            yield self._gpus, fleet.call_s + fleet.tile_s * costs.tiles / costs.calls
            if sample.calls_wait_s:
                yield self._pause, sample.calls_wait_s / costs.calls


def _visit(station: Station, wanted: float) -> Process:
    yield station, wanted
