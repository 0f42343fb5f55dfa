"""What is learned from a real run, and how it is compared with simulated ones."""

from __future__ import annotations

import psutil
import pytest
from benchmarks.image_jobs import STAGES, Run, Work
from benchmarks.model_server import Activity
from benchmarks.scaling_check import JOBS, compare, learned
from benchmarks.scaling_costs import Sample
from benchmarks.scaling_probe import Seen, costs_of

JOB_COUNT = 20


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
    costs = costs_of(seen())
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
    sample = costs_of(seen(work_s=0.1)).samples[0]
    assert (sample.before_wait_s, sample.calls_wait_s, sample.after_wait_s) == (0, 0, 0)


def test_others_are_whoever_works_and_is_not_ours() -> None:
    assert seen(others_s=2.5).others_cores == pytest.approx(0.5)


def test_one_worker_is_simulated_as_it_was_seen() -> None:
    runs = {key: [seen(jobs_per_s=rate) for rate in (3.9, 4.0, 4.1)] for key in JOBS}
    figures = {(each["workers"], each["tile_ms"]): each for each in compare(learned(runs), runs, seed=1)}
    # The model took 25 ms a tile when it was seen; here it takes 20.
    assert figures[1, 20.0]["simulated_images_per_s"] == pytest.approx(1 / (0.25 - 2 * 0.005), abs=0.1)
    assert figures[1, 20.0]["measured_images_per_s"] == 4.0
    assert figures[1, 20.0]["error_pct"] == pytest.approx(4, abs=1)
    two = figures[2, 20.0]["simulated_images_per_s"]
    assert two == pytest.approx(2 / 0.24, rel=0.15)


@pytest.mark.skipif((psutil.cpu_count() or 1) < 2, reason="others can't take a part of a single core")
def test_cores_that_others_use_are_taken_off() -> None:
    quiet, busy = ({key: [seen(others_s=others)] * 3 for key in JOBS} for others in (0.0, 1000.0))
    slow, fast = (compare(learned(runs), runs, seed=1)[2]["simulated_images_per_s"] for runs in (busy, quiet))
    assert slow < fast
