"""Compares the simulation with real workers on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from statistics import fmean, harmonic_mean
from typing import Any

from simulation.arrivals import burst
from simulation.costs import Costs
from simulation.fleet import simulate
from simulation.parts import Fleet

from benchmarks.image_jobs import ImageWorker, Plane, image_worker
from benchmarks.model_server import ModelServer, run_model_server
from benchmarks.scaling_probe import POLL_S, Seen, costs_of, few_cores, sharing_of, watch

ROUNDS, LEAST_ROUNDS = 9, 3
#: Jobs of a slot, at least.
LEAST = 6
#: Of the model server: a graphics card, which 4 workers keep busy, and none at all, so that cores are the bottleneck.
SLOW_MS, FAST_MS = 20.0, 0.0
TILE_PX = 512
SIMULATED = 2_000


@dataclass(frozen=True)
class Setup:
    """Real workers and the model server's time for a tile."""

    workers: int
    tile_ms: float
    slots: int = 1

    @property
    def all_slots(self) -> int:
        """Of all workers together."""
        return self.workers * self.slots


#: What is compared, and how many real jobs with an image of one tile a run has: each takes one or two seconds.
COMPARED = {
    Setup(1, SLOW_MS): 50,
    Setup(2, SLOW_MS): 100,
    Setup(4, SLOW_MS): 100,
    Setup(1, FAST_MS): 100,
    Setup(2, FAST_MS): 150,
    Setup(4, FAST_MS): 150,
}
ALONE = Setup(1, FAST_MS)
#: Slots for each core in the runs that show how cores are shared, each of them of one worker.
FILLED, CROWDED = 1, 4
LEARNED_JOBS = 150


@dataclass(frozen=True)
class Runs:
    """What was seen of all setups.

    Attributes:
        cores: that each of them had.
        seen: runs of each.
    """

    cores: int
    seen: dict[Setup, list[Seen]]

    def shared(self, slots_per_core: int) -> list[Seen]:
        """Runs of one worker with so many slots."""
        return self.seen[_shared(self.cores, slots_per_core)]


def run_real(image: Plane, *, tell: Callable[[str], None]) -> Runs:
    """Run 1, 2 and 4 real workers of one slot on either server, and one worker of several slots, in turn.

    The machine's speed changes within seconds, so all workers are there all the time and have nine turns of a second or
    two each; with images of many tiles fewer, and longer ones.

    Raises:
        RuntimeError: a job failed, or took too long.
    """
    part = min(1.0, TILE_PX**2 / image.size)
    rounds = max(LEAST_ROUNDS, round(ROUNDS * part**0.5))
    with few_cores() as cores, ExitStack() as stack:
        servers = {tile_ms: stack.enter_context(run_model_server(tile_ms)) for tile_ms in (SLOW_MS, FAST_MS)}
        most = COMPARED | {_shared(cores, slots): LEARNED_JOBS for slots in (FILLED, CROWDED)}
        runs, groups = Runs(cores, {setup: [] for setup in most}), dict[Setup, ImageWorker]()
        for setup in most:
            tell(f"start of {setup.workers} workers")
            groups[setup] = stack.enter_context(_workers(servers[setup.tile_ms], setup))
            groups[setup].run(image, LEAST * setup.all_slots)
        for number in range(rounds):
            for setup, seen in runs.seen.items():
                tell(f"real runs, {number + 1} of {rounds}: {setup.workers} workers, {setup.tile_ms:g} ms a tile")
                jobs = max(LEAST * setup.all_slots, round(part * most[setup]))
                seen.append(watch(groups[setup], servers[setup.tile_ms], image, jobs))
    return runs


def _workers(server: ModelServer, setup: Setup) -> AbstractContextManager[ImageWorker]:
    consumer = "benchmarks.consumers:Clocked"
    return image_worker(server, workers=setup.workers, slots=setup.slots, poll_s=POLL_S, CONSUMER_TYPE=consumer)


def _shared(cores: int, slots_per_core: int) -> Setup:
    return Setup(1, FAST_MS, slots_per_core * cores)


def learned(runs: Runs) -> Costs:
    """What a job takes, from runs of one slot on the fast server, and what cores lose, from those of several slots.

    All else is predicted.
    """
    alone = runs.seen[ALONE]
    sharing = sharing_of(alone, runs.shared(FILLED), runs.shared(CROWDED), runs.cores)
    return replace(costs_of(alone), sharing=sharing)


def compare(costs: Costs, runs: Runs, *, seed: int) -> list[dict[str, Any]]:
    """Simulate each of the real runs: the same workers, and this machine's cores, less what others use of them.

    Returns:
        For each number of workers and each server ``measured_images_per_s``, all runs together, beside
        ``simulated_images_per_s`` and ``error_pct``; ``waiting_pct``, the part of the jobs' time in which no one
        works for them but the model; ``cores`` that work for them, and the same ``simulated``; ``others_cores``, used
        meanwhile by processes that aren't ours.
    """
    return [_compared(costs, setup, runs.seen[setup], runs.cores, seed) for setup in COMPARED]


def _compared(costs: Costs, setup: Setup, seen: list[Seen], cores: int, seed: int) -> dict[str, Any]:
    measured = harmonic_mean(each.run.jobs_per_s for each in seen)
    others = fmean(each.others_cores for each in seen)
    # What others did to a job alone is in its waits already, so they can't also have taken its only core.
    left = max(1.0, cores - others)
    tile_s = setup.tile_ms / 1e3
    fleet = Fleet(workers=setup.workers, cores=left, tile_s=tile_s, call_s=0, bucket=None, is_one_machine=True)
    outcome = simulate(costs, fleet, burst(SIMULATED), seed=seed)
    simulated = outcome.images_per_s
    return {
        "workers": setup.workers,
        "tile_ms": setup.tile_ms,
        "measured_images_per_s": round(measured, 1),
        "simulated_images_per_s": round(simulated, 1),
        "error_pct": round(100 * (simulated / measured - 1), 1),
        "waiting_pct": round(100 * fmean(_waiting(each) for each in seen)),
        "cores": round(fmean(each.cores for each in seen), 2),
        "simulated_cores": round(outcome.used_pct["cores"] / 100 * left, 2),
        "others_cores": round(others, 2),
    }


def _waiting(seen: Seen) -> float:
    """Part of the jobs' time that is neither work of their slots nor of the model server's cores."""
    work_s = seen.work.slots_s + seen.activity.cpu_s
    return max(0.0, 1 - work_s / sum(seen.run.seconds("total_time")))
