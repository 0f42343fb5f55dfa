"""How far is the simulation from real workers on this machine?"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psutil

from benchmarks.image_jobs import Plane
from benchmarks.model_server import run_model_server
from benchmarks.scaling_arrivals import burst
from benchmarks.scaling_costs import Costs
from benchmarks.scaling_fleet import simulate
from benchmarks.scaling_parts import Fleet
from benchmarks.scaling_probe import Seen, costs_of, watch

WORKERS = (1, 2, 4)
ROUNDS = 3
#: Of the model server: a graphics card, which 4 workers keep busy, and none at all, so that cores are what is short.
TILES_MS = (20.0, 0.0)
#: Real jobs of a run with an image of one tile, for each server: each run takes some seconds.
JOBS = {(1, 20.0): 120, (2, 20.0): 240, (4, 20.0): 240, (1, 0.0): 240, (2, 0.0): 480, (4, 0.0): 480}
LEAST = 12
TILE_PX = 512
SIMULATED = 2_000

#: By workers and the server's time for a tile in ms.
Runs = dict[tuple[int, float], list[Seen]]


def run_real(image: Plane, *, tell: Callable[[str], None]) -> Runs:
    """Run 1, 2 and 4 real workers of one slot on either server, all in turn, three times.

    Raises:
        RuntimeError: a job failed, or took too long.
    """
    runs: Runs = {key: [] for key in JOBS}
    part = min(1.0, TILE_PX**2 / image.size)
    with ExitStack() as stack:
        servers = {tile_ms: stack.enter_context(run_model_server(tile_ms)) for tile_ms in TILES_MS}
        for number in range(ROUNDS):
            for (workers, tile_ms), seen in runs.items():
                tell(f"real runs, {number + 1} of {ROUNDS}: {workers} workers, {tile_ms:g} ms a tile")
                jobs = max(LEAST * workers, round(part * JOBS[workers, tile_ms]))
                seen.append(watch(servers[tile_ms], image, workers=workers, jobs=jobs))
    return runs


def learned(runs: Runs) -> Costs:
    """What a job takes, from the middle run of one worker on the slow server; all others are predicted from it."""
    seen = sorted(runs[1, TILES_MS[0]], key=lambda each: each.run.jobs_per_s)
    return costs_of(seen[len(seen) // 2])


def compare(costs: Costs, runs: Runs, *, seed: int) -> list[dict[str, Any]]:
    """Simulate each of the real runs: the same workers, and this machine's cores, less what others use of them.

    Returns:
        For each number of workers and each server ``measured_images_per_s``, the median of three runs, beside
        ``simulated_images_per_s`` and ``error_pct``; ``waiting_pct``, the part of the jobs' time in which nobody
        works for them but the model; ``others_cores``, used meanwhile by processes that aren't ours.
    """
    return [_compared(costs, workers, tile_ms, seen, seed) for (workers, tile_ms), seen in runs.items()]


def _compared(costs: Costs, workers: int, tile_ms: float, seen: list[Seen], seed: int) -> dict[str, Any]:
    measured = statistics.median(each.run.jobs_per_s for each in seen)
    others = statistics.median(each.others_cores for each in seen)
    # What others did to a job alone is in its waits already, so they can't have taken its only core as well.
    cores = max(1.0, (psutil.cpu_count() or 1) - others)
    fleet = Fleet(workers=workers, cores=cores, tile_s=tile_ms / 1e3, call_s=0, bucket=None, is_one_machine=True)
    simulated = simulate(costs, fleet, burst(SIMULATED), seed=seed).images_per_s
    return {
        "workers": workers,
        "tile_ms": tile_ms,
        "measured_images_per_s": round(measured, 1),
        "simulated_images_per_s": round(simulated, 1),
        "error_pct": round(100 * (simulated / measured - 1), 1),
        "waiting_pct": round(100 * statistics.median(_waiting(each) for each in seen)),
        "others_cores": round(others, 2),
    }


def _waiting(seen: Seen) -> float:
    """Part of the jobs' time that is neither work of their slots nor of the model server's cores."""
    work_s = seen.work.slots_s + seen.activity.cpu_s
    return max(0.0, 1 - work_s / sum(seen.run.seconds("total_time")))
