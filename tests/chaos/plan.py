"""Plans which faults come when, from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.consumer import STAGES

WORKERS = 3
KILL_EVERY_S = 1.4
OTHER_EVERY_S = 3.0
FIRST_S = 3.0
#: Longer than a lease.
STOPPED_S = (12.0, 13.0)
KILLS = ("slot", "slot", "slot", "slot", "slot", "slot", "worker", "worker", "worker", "supervisor")
OTHERS = (
    "stop", "redis-term", "redis-kill", "cut", "cut", "lose-replies", "lose-replies", "storage", "model-kill",
    "model-hang", "push-running", "push-running", "push-waiting", "push-done", "repush", "repush",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Fault:
    """One entry of the schedule.

    Attributes:
        at_s: seconds after the start.
        kind: what is broken.
        worker: the preferred worker.
        stage: the preferred stage of a job in which a process is killed.
        pause_s: how long it stays broken.
        choice: 0 to 1, which job or slot of those that there are.
        is_renamed: whether a killed worker comes back under a new name.
    """

    at_s: float
    kind: str
    worker: int
    stage: str
    pause_s: float
    choice: float
    is_renamed: bool


def plan(seed: int, seconds: float, *, is_sentinel: bool) -> list[Fault]:
    """The schedule for a seed: the same on every machine."""
    dice = random.Random(f"faults {seed}")
    kills = _sequence(dice, KILLS, seconds, KILL_EVERY_S)
    others = [each for each in OTHERS if not (is_sentinel and each.startswith("redis"))]
    faults = [_fault(dice, at_s, kind) for at_s, kind in kills + _sequence(dice, others, seconds, OTHER_EVERY_S)]
    if is_sentinel:
        faults.append(_fault(dice, seconds * dice.uniform(0.4, 0.6), "failover"))
    return sorted(faults)


def _sequence(dice: random.Random, kinds: Sequence[str], seconds: float, every_s: float) -> list[tuple[float, str]]:
    """Moments with kinds: each kind comes at least once, and all come before any comes once more."""
    count = max(len(kinds), round((seconds - FIRST_S) / every_s))
    step_s = (seconds - FIRST_S) / count
    bag: list[str] = []
    sequence = []
    for index in range(count):
        if not bag:
            bag = dice.sample(kinds, len(kinds))
        sequence.append((FIRST_S + (index + dice.random()) * step_s, bag.pop()))
    return sequence


def _fault(dice: random.Random, at_s: float, kind: str) -> Fault:
    pauses_s = {"storage": (1, 3), "model-kill": (1, 4), "model-hang": (3, 6), "stop": STOPPED_S}
    low, high = pauses_s.get(kind, (0.2, 2.0))
    return Fault(
        round(at_s, 3),
        kind,
        dice.randrange(WORKERS),
        dice.choice(STAGES),
        round(dice.uniform(low, high), 3),
        round(dice.random(), 4),
        dice.random() < 0.7,
    )
