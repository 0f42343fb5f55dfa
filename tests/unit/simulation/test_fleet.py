"""Fleets whose figures can be worked out by hand, and what a simulation of one promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation.arrivals import burst, steady
from simulation.costs import Costs, Sample
from simulation.engine import Sharing
from simulation.fleet import simulate
from simulation.parts import Autoscaler, Bucket, Fleet

#: 1 s of work before the call, 1 s in it, 1 s after it.
COSTS = Costs([Sample(1.0, 0.0, 1.0, 0.0, 1.0, 0.0)], 0.0, 0, 1, 1, 0.0, 0.0, 0.0)
FLEET = Fleet(tile_s=2.0, call_s=0.5, trip_s=0.0, bucket=None)
MIXED = replace(COSTS, samples=[Sample(0.1 * number, 0.0, 0.2, 0.1, 0.3, 0.0) for number in range(1, 6)])


def test_one_slot_takes_the_sum_of_all_stages() -> None:
    outcome = simulate(COSTS, FLEET, burst(3), seed=0)
    assert outcome.drain_s == pytest.approx(3 * 5.5)
    assert (outcome.wait_p50_s, outcome.result_p50_s) == pytest.approx((5.5, 11))
    assert outcome.used_pct == {"gpus": 45.45, "slots": 100.0, "cores": 27.27, "redis": 0.0}


def test_slots_beyond_what_a_gpu_takes_wait_for_it() -> None:
    outcome = simulate(COSTS, replace(FLEET, workers=10), burst(100), seed=0)
    # The first call begins after 2 s, and the last job works for 1 s after its call.
    assert outcome.drain_s == pytest.approx(2 + 100 * 2.5 + 1)


def test_slots_of_a_worker_share_its_cores() -> None:
    costs = replace(COSTS, tiles=0)
    outcome = simulate(costs, replace(FLEET, slots=4, cores=2, call_s=0), burst(40), seed=0)
    assert outcome.images_per_s == pytest.approx(2 / 3)
    assert outcome.used_pct["cores"] == pytest.approx(100)


def test_on_one_machine_the_model_server_has_the_same_cores() -> None:
    costs = replace(COSTS, tiles=0, server_s=1.0, redis_s=1.0)
    fleet = replace(FLEET, workers=5, cores=2, call_s=0, is_one_machine=True)
    assert simulate(costs, fleet, burst(500), seed=0).images_per_s == pytest.approx(2 / 5, rel=0.01)


def test_on_one_machine_work_that_nobody_waits_for_takes_cores_too() -> None:
    costs = replace(COSTS, tiles=0, beside_s=1.0)
    fleet = replace(FLEET, cores=2, call_s=0, is_one_machine=True)
    alone, crowded = (simulate(costs, replace(fleet, workers=workers), burst(500), seed=0) for workers in (1, 5))
    assert alone.images_per_s == pytest.approx(1 / 3)
    assert crowded.images_per_s == pytest.approx(2 / 4, rel=0.01)


def test_cores_of_a_worker_are_shared_as_they_were_seen() -> None:
    costs = replace(COSTS, tiles=0, sharing=Sharing(misplaced=1.0, slowdown=1.5))
    fleet = replace(FLEET, cores=2, call_s=0)
    one, two = (simulate(costs, replace(fleet, slots=slots), burst(40), seed=0).images_per_s for slots in (1, 2))
    assert one == pytest.approx(1 / 3)
    # 1.5 cores work, each at 1 / 1.25 of its speed.
    assert two == pytest.approx(1.5 / 1.25 / 3)


def test_redis_does_one_thing_at_a_time() -> None:
    fleet = replace(FLEET, workers=100, gpus=100)
    outcome = simulate(replace(COSTS, redis_s=0.5), fleet, burst(1000), seed=0)
    assert outcome.images_per_s == pytest.approx(2, rel=0.02)
    assert outcome.used_pct["redis"] == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize(
    ("limit", "name", "images_per_s"),
    [
        (Bucket(reads_per_s=2), "bucket_reads", 2),
        (Bucket(writes_per_s=2), "bucket_writes", 1),
        (Bucket(bytes_per_s=1000), "bucket_out", 1),
    ],
)
def test_a_bucket_limits_requests_and_bytes(limit: Bucket, name: str, images_per_s: float) -> None:
    costs = replace(COSTS, objects=2, read_bytes=500, written_bytes=1000)
    outcome = simulate(costs, replace(FLEET, workers=100, gpus=100, bucket=limit), burst(1000), seed=0)
    assert outcome.images_per_s == pytest.approx(images_per_s, rel=0.02)
    assert outcome.used_pct[name] == pytest.approx(100, rel=0.02)


def test_calls_in_flight_keep_the_server_from_waiting_for_the_slot() -> None:
    costs = replace(COSTS, calls=4, tiles=4, samples=[Sample(0.0, 0.0, 4.0, 0.0, 0.0, 0.0)])
    one, two = (simulate(costs, replace(FLEET, calls_in_flight=calls), burst(1), seed=0).drain_s for calls in (1, 2))
    assert one == pytest.approx(4 * (1 + 2.5))
    assert two == pytest.approx(1 + 4 * 2.5)


def test_images_that_come_seldom_wait_for_nobody() -> None:
    outcome = simulate(COSTS, replace(FLEET, workers=4, gpus=4), [0.0, 10.0, 20.0], seed=0)
    assert outcome.drain_s == pytest.approx(25.5)
    assert outcome.wait_p99_s == 0


def test_workers_come_late_and_go_when_the_queue_is_short() -> None:
    scaler = Autoscaler(jobs_per_worker=5, interval_s=10, delay_s=100)
    fleet = replace(FLEET, workers=10, gpus=10, autoscaler=scaler)
    fixed = simulate(COSTS, replace(fleet, autoscaler=None), burst(300), seed=0)
    scaled = simulate(COSTS, fleet, burst(300), seed=0)
    assert fixed.drain_s == pytest.approx(300 / 10 * 5.5)
    # One worker alone until 110 s; then ten of them, until they are too many for what is left.
    assert scaled.drain_s > 110 + (300 - 110 / 5.5) / 10 * 5.5
    # No worker was there without a job for long.
    assert scaled.worker_hours * 3600 == pytest.approx(300 * 5.5, rel=0.05)


def test_a_seed_gives_the_same_outcome_and_another_one_does_not() -> None:
    def outcome(seed: int) -> object:
        return simulate(MIXED, replace(FLEET, workers=3), steady(500, 0.3, seed=seed), seed=seed)

    assert outcome(1) == outcome(1)
    assert outcome(1) != outcome(2)


def test_it_tells_how_far_it_is() -> None:
    told: list[int] = []
    simulate(COSTS, replace(FLEET, tile_s=0, call_s=0, workers=1000), burst(20_000), seed=0, tell=told.append)
    assert told == [10_000, 20_000]
