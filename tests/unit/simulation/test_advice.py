"""Bottlenecks and settings of fleets that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation.advice import advise, batch_setting, calls_in_flight, limits, slots_per_worker, workers_per_gpu
from simulation.costs import Costs, Sample
from simulation.engine import Sharing
from simulation.parts import Bucket, Fleet

#: A second of a slot, of which a tenth are work, a half is the model's.
COSTS = Costs([Sample(0.1, 0.4, 0.0, 0.0, 0.0, 0.0)], 0.001, 7, 1, 1, 0.0, 1e6, 1e6, slot_bytes=1 << 28)
FLEET = Fleet(tile_s=0.5, call_s=0.0, trip_s=0.0, bucket=Bucket(latency_s=0.0))


def test_the_lowest_limit_is_the_bottleneck() -> None:
    found = limits(COSTS, replace(FLEET, workers=3, slots=2, gpus=4))
    assert list(found)[:3] == ["slots", "gpus", "cores"]
    assert found["slots"] == pytest.approx(6, rel=0.01)
    assert (found["gpus"], found["cores"], found["redis"]) == (8, 60, 1000)
    assert (found["bucket_writes"], found["bucket_out"]) == (1000, 3125)


def test_two_slots_keep_a_gpu_busy_that_takes_half_of_their_time() -> None:
    assert workers_per_gpu(COSTS, FLEET, seed=0) == pytest.approx(2, abs=0.25)


def test_gpus_faster_than_redis_get_their_workers_too() -> None:
    slow_redis = replace(COSTS, redis_s=1.0)
    assert workers_per_gpu(slow_redis, FLEET, seed=0) == workers_per_gpu(COSTS, FLEET, seed=0)


def test_slots_fill_cores_or_memory() -> None:
    assert slots_per_worker(COSTS, replace(FLEET, memory_bytes=1 << 40)) == 16
    assert slots_per_worker(COSTS, replace(FLEET, memory_bytes=4 << 30)) == 12
    assert slots_per_worker(COSTS, replace(FLEET, memory_bytes=1 << 20)) == 1


def test_cores_that_slow_each_other_take_fewer_slots() -> None:
    slowed = replace(COSTS, sharing=Sharing(slowdown=2.0))
    fleet = replace(FLEET, memory_bytes=1 << 40)
    assert slots_per_worker(slowed, fleet) == slots_per_worker(COSTS, fleet) / 2
    assert limits(slowed, fleet)["cores"] == limits(COSTS, fleet)["cores"] / 2


def test_gpus_beyond_what_the_bucket_takes_get_no_workers() -> None:
    slow = replace(FLEET, bucket=Bucket(writes_per_s=4, latency_s=0))
    few, many = (advise(COSTS, replace(slow, gpus=gpus), seed=0) for gpus in (1, 64))
    assert (many.gpus_of_use, many.held_by) == (2, "bucket_writes")
    assert few.workers <= many.workers <= 2 * few.workers


@pytest.mark.parametrize(
    ("calls", "slot_s", "wanted"),
    [(1, 0.5, 1), (8, 0.25, 2), (8, 1.0, 2), (8, 0.0, 1)],
)
def test_calls_in_flight_keep_the_slowest_busy(calls: int, slot_s: float, wanted: int) -> None:
    costs = replace(COSTS, calls=calls, tiles=calls, samples=[Sample(0.0, 0.0, slot_s * calls, 0.0, 0.0, 0.0)])
    assert calls_in_flight(costs, FLEET) == wanted


@pytest.mark.parametrize(("call_s", "wanted"), [(0.0, 16), (0.05, 32), (0.1, 64), (10.0, 64)])
def test_batches_grow_with_the_time_of_a_call(call_s: float, wanted: int) -> None:
    assert batch_setting(replace(FLEET, call_s=call_s)) == wanted
