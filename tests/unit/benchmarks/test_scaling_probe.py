"""What is learned from a real run, and how it is compared with simulated ones."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from benchmarks.image_jobs import STAGES, Run, Work
from benchmarks.model_server import Activity
from benchmarks.scaling_check import COMPARED, CROWDED, FILLED, SLOW_MS, Runs, Setup, compare, learned
from benchmarks.scaling_probe import Seen, costs_of, few_cores, sharing_of
from simulation.costs import Sample

JOB_COUNT = 20
CORES = 2


def seen(*, jobs_per_s: float = 4.0, work_s: float = 0.01, others_s: float = 0.0) -> Seen:
    """Jobs of 0.24 s, each stage 0.04 s but 0.08 s for the calls, of which the model takes 0.05 s."""
    stages = {f"{stage}_time": "0.04" for stage in STAGES} | {f"{stage}_cpu": str(work_s) for stage in STAGES}
    job = stages | {"prediction_time": "0.08", "total_time": "0.24"}
    slots_s = JOB_COUNT * (5 * work_s + 0.002)
    return Seen(
        run=Run(jobs_per_s, [job] * JOB_COUNT),
        activity=Activity(0.05 * JOB_COUNT, 5.0, 2 * JOB_COUNT, JOB_COUNT, 0.01 * JOB_COUNT),
        work=Work(slots_s, 0.002 * JOB_COUNT, 7 * JOB_COUNT, 100),
        all_work_s=slots_s + 0.012 * JOB_COUNT + others_s,
        span_s=5.0,
        read_bytes=10.0,
        written_bytes=20.0,
        objects=1.0,
    )


def test_each_second_of_a_job_is_accounted_for_once() -> None:
    costs = costs_of([seen()])
    whole = Sample(
        before_work_s=0.02,
        before_wait_s=0.06 - 0.001,
        calls_work_s=0.01,
        calls_wait_s=0.08 - 0.01 - 0.06,
        after_work_s=0.02 + 0.002,
        after_wait_s=0.06 + 0.01 - 0.002 - 0.001,
    )
    assert vars(costs.samples[0]) == pytest.approx(vars(whole))
    assert costs.work_s + costs.wait_s + costs.server_s + costs.redis_s + 0.05 == pytest.approx(1 / 4)
    assert (costs.calls, costs.tiles, costs.redis_trips, costs.slot_bytes) == (1, 2, 7, 100)


def test_a_stage_that_works_on_several_cores_waits_for_nothing() -> None:
    sample = costs_of([seen(work_s=0.1)]).samples[0]
    assert (sample.before_wait_s, sample.calls_wait_s, sample.after_wait_s) == (0, 0, 0)


def test_others_are_whoever_works_and_is_not_ours() -> None:
    assert seen(others_s=2.5).others_cores == pytest.approx(0.5)


def test_what_the_server_does_while_the_slot_works_is_waited_for_by_nobody() -> None:
    # Of 80 ms the model takes 50 and the slot 25, so the slot has 5 of the server's 10 ms to wait for.
    costs = costs_of([seen(work_s=0.025)])
    assert (costs.server_s, costs.beside_s) == pytest.approx((0.005, 0.005))
    assert costs.samples[0].calls_wait_s == pytest.approx(0)


def test_samples_of_all_runs_count() -> None:
    costs = costs_of([seen(work_s=0.01), seen(work_s=0.02)])
    assert len(costs.samples) == 2 * JOB_COUNT
    assert costs.work_s == pytest.approx(0.075 + 0.002)


def test_idle_cores_and_longer_work_tell_how_cores_are_shared() -> None:
    alone, crowded = seen(work_s=0.01), seen(work_s=0.02)
    # Of two cores that two processes want, 1.5 work where these are put anywhere.
    rate = 1.6 / alone.job_s
    sharing = sharing_of([alone], [seen(jobs_per_s=rate)], [crowded], CORES)
    assert sharing.misplaced == pytest.approx(0.8)
    assert sharing.slowdown == pytest.approx(0.114 / 0.064)


def test_a_single_core_is_never_misplaced() -> None:
    assert sharing_of([seen()], [seen()], [seen()], 1).misplaced == 0


def runs_of(jobs_per_s: Sequence[float] = (4.0,), others_s: float = 0.0) -> Runs:
    shared = (Setup(1, 0.0, slots * CORES) for slots in (FILLED, CROWDED))
    each = [seen(jobs_per_s=rate, others_s=others_s) for rate in jobs_per_s]
    return Runs(CORES, dict.fromkeys((*COMPARED, *shared), each))


def test_one_worker_is_simulated_as_it_was_seen() -> None:
    runs = runs_of((3.9, 4.0, 4.1))
    figures = {(each["workers"], each["tile_ms"]): each for each in compare(learned(runs), runs, seed=1)}
    # The model took 25 ms a tile when it was seen; here it takes 20.
    one = figures[1, SLOW_MS]
    assert one["simulated_images_per_s"] == pytest.approx(1 / (0.25 - 2 * 0.005), abs=0.1)
    assert one["measured_images_per_s"] == 4.0
    assert one["error_pct"] == pytest.approx(4, abs=1)
    assert one["simulated_cores"] == pytest.approx(one["cores"], abs=0.02)
    two = figures[2, SLOW_MS]["simulated_images_per_s"]
    assert two == pytest.approx(2 / 0.24, rel=0.15)


def test_cores_that_others_use_are_taken_off() -> None:
    quiet, busy = runs_of(), runs_of(others_s=1000.0)
    slow, fast = (compare(learned(runs), runs, seed=1)[2]["simulated_images_per_s"] for runs in (busy, quiet))
    assert slow < fast


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to cores")
def test_runs_have_few_cores_and_others_have_them_all_again() -> None:
    all_cores = len(os.sched_getaffinity(0))
    with few_cores() as cores:
        assert len(os.sched_getaffinity(0)) == cores <= 2
    assert len(os.sched_getaffinity(0)) == all_cores
