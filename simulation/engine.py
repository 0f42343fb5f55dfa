"""Simulates time: runs events in order and lets work wait at the stations that it visits.

A process is a generator that yields a station and the amount that it needs, and continues once it has got that::

    def job():
        yield disk, 0.01
        yield cores, 0.2
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Protocol

Step = Callable[[Any], None]


class Station(Protocol):
    """Something that a process waits for."""

    def enter(self, step: Step, wanted: Any) -> None:
        """Take a process in; its `step` is called, at the time, with what it then has."""


Process = Generator[tuple[Station, Any], Any, None]


class Simulation:
    """The clock, and what is to happen when.

    Attributes:
        now: seconds since the start.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Step, Any]] = []
        self._numbers = count()

    def at(self, time: float, step: Step, value: Any = None) -> None:
        """Call a step at a time; of those at the same time, the one that was asked for first."""
        heapq.heappush(self._events, (time, next(self._numbers), step, value))

    def start(self, process: Process, time: float = 0.0, *, then: Step | None = None) -> None:
        """Begin a process at a time; `then` is called at its end."""
        advance = process.send

        def step(value: Any) -> None:
            try:
                station, wanted = advance(value)
            except StopIteration:
                if then is not None:
                    then(None)
                return
            station.enter(step, wanted)

        self.at(max(time, self.now), step)

    def run(self) -> None:
        """Let time pass until nothing more is to happen."""
        events, pop = self._events, heapq.heappop
        while events:
            self.now, _, step, value = pop(events)
            step(value)


class Servers:
    """A queue before some servers, first come, first served.

    Attributes:
        busy_s: seconds of service that were given, all servers together.

    Args:
        simulation: whose clock counts.
        servers: how many.
        after_s: what each waits after its service, while the server does the next, such as a way through the network.
    """

    def __init__(self, simulation: Simulation, servers: int = 1, *, after_s: float = 0.0) -> None:
        self._simulation = simulation
        self._free_at = [0.0] * servers
        self._after_s = after_s
        self.busy_s = 0.0

    def enter(self, step: Step, wanted: float) -> None:
        """Serve a process for that many seconds."""
        # Processes come in the order of time, so the end is known at once.
        ends = max(self._simulation.now, self._free_at[0]) + wanted
        heapq.heapreplace(self._free_at, ends)
        self.busy_s += wanted
        self._simulation.at(ends + self._after_s, step)


class Pause:
    """A station without a queue: each process waits for as long as it wants.

    Attributes:
        busy_s: seconds that were waited, all together.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.busy_s = 0.0

    def enter(self, step: Step, wanted: float) -> None:
        """Let a process continue after that many seconds."""
        self.busy_s += wanted
        self._simulation.at(self._simulation.now + wanted, step)


@dataclass(frozen=True)
class Sharing:
    """How cores that several processes want are shared, besides an even part for each.

    Attributes:
        misplaced: 0 if each process finds a core that is free; 1 where it gets any core, free or not, at random, and
            cores idle beside others that have several. Real systems lie between: they look for a free core, but not
            always, since a process is quicker where it ran before.
        slowdown: how many times longer work takes when all cores are busy, which share caches and memory.
    """

    misplaced: float = 0.0
    slowdown: float = 1.0

    def busy(self, running: int, cores: float) -> float:
        """How many cores work when so many processes want one."""
        spread = min(float(running), cores)
        # Balls in bins: a bin stays empty with chance (1 - 1/c)^n (Feller, Probability Theory I, 1968, section IV.2).
        thrown = cores * (1 - (1 - min(1.0, 1 / cores)) ** running)
        return spread + self.misplaced * (min(spread, thrown) - spread)

    def speed(self, running: int, cores: float) -> float:
        """Part of the speed that it has alone which each of so many processes has."""
        busy = self.busy(running, cores)
        crowd = max(0.0, (busy - 1) / (cores - 1)) if cores > 1 else 0.0
        return min(1.0, busy / running) / (1 + crowd * (self.slowdown - 1))


EVEN = Sharing()


class Cores:
    """Cores that an operating system shares out: with n processes on c cores, each gets c/n of one, at most one.

    Attributes:
        busy_s: seconds in which cores were busy, all cores together.

    Args:
        simulation: whose clock counts.
        cores: how many.
        sharing: what they lose where several processes want them.
    """

    def __init__(self, simulation: Simulation, cores: float, sharing: Sharing = EVEN) -> None:
        self._simulation = simulation
        self._busy = cache(lambda running: sharing.busy(running, cores))
        self._speed = cache(lambda running: sharing.speed(running, cores))
        #: By the work that one process would have got that were here all the time; so nothing changes with the others.
        self._running: list[tuple[float, int, Step]] = []
        self._numbers = count()
        self._work = 0.0
        self._looked_at = 0.0
        self._due = -1.0
        self.busy_s = 0.0

    def enter(self, step: Step, wanted: float) -> None:
        """Return a process that many seconds of a core."""
        self._pass_time()
        heapq.heappush(self._running, (self._work + wanted, next(self._numbers), step))
        self._set_alarm()

    def _pass_time(self) -> None:
        now = self._simulation.now
        if running := len(self._running):
            passed_s = now - self._looked_at
            self._work += passed_s * self._speed(running)
            self.busy_s += passed_s * self._busy(running)
        self._looked_at = now

    def _set_alarm(self) -> None:
        self._due = -1.0
        if self._running:
            missing = max(0.0, self._running[0][0] - self._work)
            self._due = self._simulation.now + missing / self._speed(len(self._running))
            self._simulation.at(self._due, self._alarm, self._due)

    def _alarm(self, due: float) -> None:
        if due != self._due:
            return  # the number of processes has changed since
        self._pass_time()
        work, _, step = heapq.heappop(self._running)
        self._work = work
        step(None)
        self._set_alarm()


class Line:
    """Things that wait for someone who takes them, both first come, first served: a queue of jobs, and its slots."""

    def __init__(self) -> None:
        self.things: deque[Any] = deque()
        self._takers: deque[Step] = deque()

    def put(self, thing: Any, *, is_next: bool = False) -> None:
        """Hand it to the process that waits longest, or keep it, at the end or as the next one."""
        if self._takers:
            self._takers.popleft()(thing)
        elif is_next:
            self.things.appendleft(thing)
        else:
            self.things.append(thing)

    def enter(self, step: Step, wanted: None) -> None:  # noqa: ARG002 - a station's signature
        """Return a process the thing that waits longest, or let it wait for the next."""
        if self.things:
            step(self.things.popleft())
        else:
            self._takers.append(step)


class Together:
    """Where a process waits for others that it starts at once."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def enter(self, step: Step, wanted: Iterable[Process]) -> None:
        """Start processes; continue when the last one has ended."""
        processes = list(wanted)
        left = len(processes)

        def ended(_: None) -> None:
            nonlocal left
            left -= 1
            if not left:
                step(None)

        for process in processes:
            self._simulation.start(process, self._simulation.now, then=ended)
