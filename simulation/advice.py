"""Finds the bottleneck of a fleet and the next one, and advises settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean

from redis_consumer.serving.base import batch_size_for
from simulation.arrivals import burst
from simulation.costs import Costs
from simulation.fleet import simulate
from simulation.parts import Bucket, Fleet

#: Images of a simulation that looks for a number of workers.
IMAGES = 2_000
#: Its GPUs: several, since half a worker may be enough for one.
GPUS = 4
#: Part of the images per second that nothing but the workers limits, which is enough.
ENOUGH = 0.95
#: Part of a worker's cores and memory that its slots may fill; the rest is for peaks.
FILLED = 0.8
#: A call's own time on the GPU may be this part of its tiles'.
CALL_PART = 0.05
LARGEST_BATCH = 64
#: Of a tile, and of the one that TF_MAX_BATCH_SIZE counts.
TILE_PX, COUNTED_PX = 512, 128


def limits(costs: Costs, fleet: Fleet) -> dict[str, float]:
    """Images per second at which each station has no pause left, the lowest first; the lowest is the bottleneck."""
    slots = fleet.workers * fleet.slots
    found = {
        "slots": slots / alone_s(costs, fleet),
        "cores": fleet.workers * fleet.cores / costs.crowded_s,
        "gpus": fleet.gpus / gpu_s(costs, fleet),
        "redis": 1 / costs.redis_s,
    }
    if fleet.bucket:
        found |= {
            "bucket_reads": fleet.bucket.reads_per_s,
            "bucket_writes": fleet.bucket.writes_per_s / costs.objects,
            "bucket_in": fleet.bucket.bytes_per_s / costs.read_bytes,
            "bucket_out": fleet.bucket.bytes_per_s / costs.written_bytes,
        }
    return {name: round(found[name], 2) for name in sorted(found, key=found.__getitem__)}


def gpu_s(costs: Costs, fleet: Fleet) -> float:
    """Seconds of a GPU for an image."""
    return costs.calls * fleet.call_s + costs.tiles * fleet.tile_s


def alone_s(costs: Costs, fleet: Fleet) -> float:
    """Seconds of an image that waits for no other one, from claim to end."""
    alone = replace(fleet, workers=1, slots=1, autoscaler=None)
    outcome = simulate(costs, alone, burst(len(costs.samples)), seed=0)
    return outcome.drain_s / len(costs.samples)


@dataclass(frozen=True)
class Advice:
    """Settings for a number of GPUs.

    Attributes:
        workers: how many.
        workers_per_gpu: the same for a GPU.
        concurrency: ``CONCURRENCY``, slots of each worker.
        calls_in_flight: ``CALLS_IN_FLIGHT``.
        tf_max_batch_size: ``TF_MAX_BATCH_SIZE``, for tiles of 512 px.
        gpus_of_use: more GPUs than these add nothing.
        held_by: what limits their number.
    """

    workers: int
    workers_per_gpu: float
    concurrency: int
    calls_in_flight: int
    tf_max_batch_size: int
    gpus_of_use: int
    held_by: str


def advise(costs: Costs, fleet: Fleet, *, seed: int) -> Advice:
    """Return which workers and settings keep the GPUs of a fleet busy, at the least cost."""
    slots = slots_per_worker(costs, fleet)
    per_gpu = workers_per_gpu(costs, replace(fleet, slots=slots), seed=seed)
    others = {name: value for name, value in limits(costs, fleet).items() if name not in ("slots", "cores", "gpus")}
    held_by, most = min(others.items(), key=lambda item: item[1])
    of_use = max(1, math.ceil(most * gpu_s(costs, fleet)))
    gpus = min(fleet.gpus, of_use)
    return Advice(
        max(1, math.ceil(per_gpu * gpus)),
        round(per_gpu, 2),
        slots,
        calls_in_flight(costs, fleet),
        batch_setting(fleet),
        of_use,
        held_by,
    )


def slots_per_worker(costs: Costs, fleet: Fleet) -> int:
    """As many slots as fill a worker's cores, or its memory, but for a rest."""
    busy = FILLED * fleet.cores * alone_s(costs, fleet) / costs.crowded_s
    fit = FILLED * fleet.memory_bytes / costs.slot_bytes if costs.slot_bytes else math.inf
    return max(1, int(min(busy, fit)))


def workers_per_gpu(costs: Costs, fleet: Fleet, *, seed: int) -> float:
    """The smallest number of workers that keeps GPUs busy, found by simulations in which nothing else has a limit."""
    aim = ENOUGH * GPUS / gpu_s(costs, fleet)
    costs = replace(costs, redis_s=0.0)

    def is_enough(workers: int) -> bool:
        tried = replace(fleet, workers=workers, gpus=GPUS, bucket=_unlimited(fleet), autoscaler=None)
        images = IMAGES + 50 * workers * fleet.slots
        return simulate(costs, tried, burst(images), seed=seed).images_per_s >= aim

    most = 1
    while not is_enough(most):
        most *= 2
    least = most // 2  # not enough
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if is_enough(middle) else (middle, most)
    return most / GPUS


def _unlimited(fleet: Fleet) -> Bucket | None:
    """The bucket of a fleet with its latency only."""
    return fleet.bucket and Bucket(math.inf, math.inf, math.inf, fleet.bucket.latency_s)


def calls_in_flight(costs: Costs, fleet: Fleet) -> int:
    """Calls of one image in flight that keep the slowest of those who work on them busy, so far as an image has any."""
    slot_s = fmean(sample.calls_work_s for sample in costs.samples) / costs.calls
    model_s = gpu_s(costs, fleet) / costs.calls
    whole_s = slot_s + fleet.trip_s + costs.server_s + model_s
    return min(costs.calls, math.ceil(whole_s / max(slot_s, model_s)))


def batch_setting(fleet: Fleet) -> int:
    """The smallest power of two with which a call's own time is a small part of its tiles'."""
    setting = 1
    while setting < LARGEST_BATCH:
        tiles = batch_size_for([(-1, TILE_PX, TILE_PX, 1)], setting, COUNTED_PX)
        if setting >= (TILE_PX / COUNTED_PX) ** 2 and fleet.call_s <= CALL_PART * tiles * fleet.tile_s:
            break
        setting *= 2
    return setting
