"""Measures jobs a second through the queue, beside other queues and the limit of Python and Redis."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import queue_peers
from benchmarks.queue_ours import THREADS, floor, ours
from benchmarks.queue_run import jobs_per_s, round_trips_per_job

ROUNDS = 3
SLOTS = 8
JOBS = 8_000
JOBS_COUNTED = 1_000


def measure() -> dict[str, Any]:
    """No-op jobs on one worker, logging warnings only; medians of three rounds, in each of which every contender runs.

    Returns:
        Jobs per second: ``ours_1`` and ``ours_8`` (slots), ``saq``, ``taskiq``, ``dramatiq``, ``rq``, ``arq``, each at
        its best setting (`benchmarks.queue_ours`, `benchmarks.queue_peers`); ``floor`` (`benchmarks.queue_floor`);
        ``ours_1_thread``, our one slot as it is by default; ``taskiq_1`` and ``dramatiq_1``, theirs on a single process
        as all others; ``round_trips_per_job`` of ours with one slot. Ratios: ours to the best peer, to the best peer of
        one process, and to the floor. ``spread``: lowest and highest round.

    Raises:
        SettingsError: an environment of a peer is missing.
    """
    queue_peers.check()
    contenders = [
        ours("ours_1", 2 * JOBS, threads=THREADS),
        ours("ours_1_thread", JOBS),
        ours(f"ours_{SLOTS}", 2 * JOBS, slots=SLOTS),
        floor(JOBS),
        *queue_peers.peers(),
    ]
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(ROUNDS):
        for contender in contenders:
            rates[contender.name].append(jobs_per_s(contender))
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    return {
        **medians,
        "round_trips_per_job": round(round_trips_per_job(ours("ours_1", JOBS_COUNTED, threads=THREADS)), 2),
        **_ratios(medians),
        "rounds": ROUNDS,
        "jobs": {contender.name: contender.jobs for contender in contenders},
        "spread": {name: [round(min(values)), round(max(values))] for name, values in rates.items()},
        "settings": {contender.name: contender.settings for contender in contenders},
        "versions": queue_peers.versions(),
    }


def _ratios(rates: dict[str, float]) -> dict[str, Any]:
    best = max(queue_peers.NAMES, key=rates.__getitem__)
    best_of_one = max(["saq", "taskiq_1", "dramatiq_1", "rq", "arq"], key=rates.__getitem__)
    own = ("ours_1", "ours_1_thread", f"ours_{SLOTS}")
    return {
        "best_peer": best,
        "best_peer_of_one_process": best_of_one,
        "ratio_best_peer": {name: round(rates[name] / rates[best], 2) for name in own},
        "ratio_best_peer_of_one_process": {name: round(rates[name] / rates[best_of_one], 2) for name in own},
        "ratio_floor": {name: round(rates[name] / rates["floor"], 2) for name in own},
    }
