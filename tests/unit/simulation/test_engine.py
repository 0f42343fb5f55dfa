"""The simulation's stations, beside what the theory of queues says of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from simulation.engine import Cores, Line, Pause, Process, Servers, Sharing, Simulation, Station, Together

RATE = 0.7
CUSTOMERS = 40_000


def mean_time(make: Callable[[Simulation], Station], *, load: float, service: Callable[[], float]) -> float:
    """Mean seconds from arrival to departure, with Poisson arrivals."""
    simulation, dice, times = Simulation(), random.Random(5), []
    station = make(simulation)

    def customer() -> Process:
        arrived = simulation.now
        yield station, service()
        times.append(simulation.now - arrived)

    arrives = 0.0
    for _ in range(CUSTOMERS):
        arrives += dice.expovariate(load)
        simulation.start(customer(), arrives)
    simulation.run()
    return sum(times) / len(times)


def exponential(mean: float = 1.0) -> Callable[[], float]:
    dice = random.Random(6)
    return lambda: dice.expovariate(1 / mean)


def erlang_c(servers: int, load: float) -> float:
    """Chance to wait in M/M/c, Erlang's second formula (Kleinrock, Queueing Systems I, 1975, section 3.5)."""
    free = sum(load**k / math.factorial(k) for k in range(servers))
    full = load**servers / math.factorial(servers) * servers / (servers - load)
    return full / (free + full)


def test_one_server_is_m_m_1() -> None:
    # Kleinrock, section 3.2: T = 1 / (mu - lambda).
    seen = mean_time(Servers, load=RATE, service=exponential())
    assert seen == pytest.approx(1 / (1 - RATE), rel=0.08)


@pytest.mark.parametrize("servers", [2, 4])
def test_several_servers_are_m_m_c(servers: int) -> None:
    load = RATE * servers
    seen = mean_time(lambda simulation: Servers(simulation, servers), load=load, service=exponential())
    assert seen == pytest.approx(1 + erlang_c(servers, load) / (servers - load), rel=0.08)


def test_constant_service_waits_half_as_long() -> None:
    # Pollaczek and Khinchine (Kleinrock, section 5.6): W = rho / (2 (1 - rho)) for M/D/1.
    seen = mean_time(Servers, load=RATE, service=lambda: 1.0)
    assert seen == pytest.approx(1 + RATE / (2 * (1 - RATE)), rel=0.08)


def test_one_shared_core_minds_the_mean_of_the_work_only() -> None:
    # M/G/1 with processor sharing: T = 1 / (mu - lambda), whatever the distribution (Kleinrock II, 1976, section 4.4).
    dice = random.Random(7)
    seen = mean_time(lambda simulation: Cores(simulation, 1), load=RATE, service=lambda: dice.choice([0.2, 0.2, 2.6]))
    assert seen == pytest.approx(1 / (1 - RATE), rel=0.08)


def test_two_shared_cores_are_m_m_2() -> None:
    # With exponential work the number present doesn't depend on the order of service.
    seen = mean_time(lambda simulation: Cores(simulation, 2), load=2 * RATE, service=exponential())
    assert seen == pytest.approx(1 + erlang_c(2, 2 * RATE) / (2 - 2 * RATE), rel=0.08)


def ends(simulation: Simulation, *processes: Process) -> list[float]:
    times: list[float] = []
    for process in processes:
        simulation.start(process, then=lambda _: times.append(simulation.now))
    simulation.run()
    return times


def visit(*stops: tuple[Station, float]) -> Process:
    yield from stops


def test_a_line_of_constant_stations_is_exact() -> None:
    simulation = Simulation()
    first, second = Servers(simulation), Servers(simulation, after_s=0.5)
    times = ends(simulation, *(visit((first, 1.0), (second, 2.0)) for _ in range(4)))
    assert times == [3.5, 5.5, 7.5, 9.5]
    assert (first.busy_s, second.busy_s) == (4.0, 8.0)


def test_cores_are_shared_exactly() -> None:
    simulation = Simulation()
    cores = Cores(simulation, 2)
    # Three on two cores: 2/3 each until the short one ends at 1.5 s, then a core each.
    assert ends(simulation, *(visit((cores, work)) for work in (1.0, 2.0, 3.0))) == pytest.approx([1.5, 2.5, 3.5])
    assert cores.busy_s == 6.0


def test_processes_put_on_any_core_leave_others_idle() -> None:
    # Two balls fall into the same of two bins every other time, and fill 1.5 of them on average.
    anywhere = Sharing(misplaced=1.0)
    assert [anywhere.busy(running, 2) for running in (1, 2, 3)] == [1, 1.5, 1.75]
    assert Sharing(misplaced=0.5).busy(2, 2) == 1.75
    simulation = Simulation()
    cores = Cores(simulation, 2, anywhere)
    assert ends(simulation, *(visit((cores, 3.0)) for _ in range(2))) == pytest.approx([4.0, 4.0])
    assert cores.busy_s == pytest.approx(6.0)


def test_work_takes_longer_where_all_cores_are_busy() -> None:
    simulation = Simulation()
    cores = Cores(simulation, 2, Sharing(slowdown=1.5))
    # Together until 1.5 s, then the longer one is alone, and as fast as it can be.
    assert ends(simulation, *(visit((cores, work)) for work in (1.0, 3.0))) == pytest.approx([1.5, 3.5])
    assert cores.busy_s == pytest.approx(5.0)


@pytest.mark.parametrize("cores", [0.5, 1.0])
def test_one_core_or_less_is_shared_evenly(cores: float) -> None:
    simulation = Simulation()
    station = Cores(simulation, cores, Sharing(misplaced=1.0, slowdown=2.0))
    assert ends(simulation, *(visit((station, 1.0)) for _ in range(2))) == pytest.approx([2 / cores, 2 / cores])


def test_nobody_waits_for_others_in_a_pause() -> None:
    simulation = Simulation()
    pause = Pause(simulation)
    assert ends(simulation, *(visit((pause, 2.0)) for _ in range(3))) == [2.0, 2.0, 2.0]


def test_a_process_waits_for_those_that_it_starts() -> None:
    simulation = Simulation()
    together, pause = Together(simulation), Pause(simulation)

    def parent() -> Process:
        yield together, [visit((pause, 1.0)), visit((pause, 4.0))]
        yield pause, 1.0

    assert ends(simulation, parent()) == [5.0]


def test_who_waits_longest_is_served_first() -> None:
    line, taken = Line(), []
    line.enter(lambda thing: taken.append(("first", thing)), None)
    line.enter(lambda thing: taken.append(("second", thing)), None)
    for thing in "abc":
        line.put(thing)
    line.enter(lambda thing: taken.append(("third", thing)), None)
    assert taken == [("first", "a"), ("second", "b"), ("third", "c")]
