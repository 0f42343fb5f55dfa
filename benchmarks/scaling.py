"""Simulates fleets of one to a thousand workers from job times measured here, checked against real workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from simulation.advice import advise, limits
from simulation.arrivals import burst, daily, steady
from simulation.costs import Costs
from simulation.fleet import simulate
from simulation.parts import Autoscaler, Fleet

from benchmarks.image_jobs import Plane, photograph
from benchmarks.model_server import run_model_server
from benchmarks.scaling_check import compare, learned, run_real
from benchmarks.scaling_probe import redis_work_s

IMAGES = 1_000_000
SEED = 7
TILE_MS, CALL_MS = 20.0, 2.0
SIDE_PX = 512
GPUS = (1, 4, 16, 64)
WORKERS = (1, 10, 100, 1000)
#: Of the fleet through which all images go, in each pattern.
PATTERN_GPUS = 16
#: The fleets of the table get this part of them; more images change nothing about their images per second.
TABLE_PART = 20
STEADY_LOAD = 0.8

#: Says what is done, how many of its images, and of how many.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scenario:
    """Some images and a fleet.

    Attributes:
        arrivals: name of the pattern.
        fleet: what runs.
        times: of the arrivals.
    """

    arrivals: str
    fleet: Fleet
    times: Sequence[float]


def measure(
    *,
    images: int = IMAGES,
    seed: int = SEED,
    tile_ms: float = TILE_MS,
    call_ms: float = CALL_MS,
    side_px: int = SIDE_PX,
) -> dict[str, Any]:
    """Measure what jobs take here, check the simulation against 1, 2 and 4 real workers, then simulate fleets.

    Real workers and their servers have two cores, where the system can do that, so that a few workers make them short.

    Real: workers, Redis, bucket on disk, and a gRPC server that sleeps as long as a model takes. Assumed, see
    `simulation.parts`: the GPU's times, the bucket's limits, ways through the network.

    Args:
        images: that go through the fleet of each pattern of arrivals; a twentieth through each fleet of the table.
        seed: of the simulations; with the same costs it gives the same figures.
        tile_ms: time of a GPU for a tile of 512 x 512 px.
        call_ms: time of a GPU for a call, whatever its tiles.
        side_px: sides of the image.

    Returns:
        ``costs`` of an image; ``checked``, real next to simulated; ``table`` and ``patterns``: for each fleet
        ``images_per_s``, ``drain_s``, waiting times, ``used_pct`` and ``limits_images_per_s`` of the stations,
        ``bottleneck``, ``next_bottleneck``; ``recommended``, settings by the number of GPUs; ``assumed``.
    """
    image = photograph(side_px, side_px)
    with _progress() as tell:
        runs = run_real(image, tell=lambda text: tell(text, 0, 1))
        here = learned(runs)
        checked = compare(here, runs, seed=seed)
        tell("Redis alone", 0, 1)
        costs = replace(here, redis_s=_redis_s(image))
        fleet = Fleet(tile_s=tile_ms / 1e3, call_s=call_ms / 1e3)
        return {
            "costs": _shown(costs),
            "checked": checked,
            "worst_error_pct": max(abs(each["error_pct"]) for each in checked),
            **simulate_fleets(costs, fleet, images=images, seed=seed, tell=tell),
        }


def simulate_fleets(costs: Costs, fleet: Fleet, *, images: int, seed: int, tell: Tell) -> dict[str, Any]:
    """Send images through fleets of 1 to 1,000 workers and 1 to 64 GPUs; see `measure`."""
    advice = {gpus: advise(costs, replace(fleet, gpus=gpus), seed=seed) for gpus in GPUS}
    some = burst(max(1, images // TABLE_PART))
    table = [
        Scenario("burst", replace(fleet, gpus=gpus, workers=workers), some) for gpus in GPUS for workers in WORKERS
    ]
    advised = advice[PATTERN_GPUS]
    best = replace(fleet, gpus=PATTERN_GPUS, workers=advised.workers, slots=advised.concurrency)
    return {
        "table": [_row(each, costs, seed, tell) for each in table],
        "patterns": [_row(each, costs, seed, tell) for each in patterns(costs, best, images, seed)],
        "recommended": {str(gpus): asdict(each) for gpus, each in advice.items()},
        "assumed": _assumed(fleet),
        "images": images,
        "seed": seed,
    }


def patterns(costs: Costs, fleet: Fleet, images: int, seed: int) -> Iterator[Scenario]:
    """The same images all at once and one by one; with workers that come when needed; over a day, to a single GPU."""
    rate = STEADY_LOAD * min(limits(costs, fleet).values())
    scaled = replace(fleet, autoscaler=Autoscaler())
    yield Scenario("burst", fleet, burst(images))
    yield Scenario("steady", fleet, steady(images, rate, seed=seed))
    yield Scenario("burst, autoscaler", scaled, burst(images))
    yield Scenario("day, autoscaler", replace(scaled, gpus=1), daily(images, seed=seed))


def _redis_s(image: Plane) -> float:
    with run_model_server(0) as server:
        return redis_work_s(server, image)


def _assumed(fleet: Fleet) -> dict[str, Any]:
    chosen = ("workers", "slots", "gpus", "is_one_machine")
    values = {name: value for name, value in asdict(fleet).items() if name not in chosen}
    return values | {"autoscaler": asdict(Autoscaler())}


def _shown(costs: Costs) -> dict[str, float]:
    return {
        "work_ms": round(1e3 * costs.work_s, 2),
        "wait_ms": round(1e3 * costs.wait_s, 2),
        "server_ms": round(1e3 * costs.server_s, 2),
        "server_beside_ms": round(1e3 * costs.beside_s, 2),
        "cores_misplaced": round(costs.sharing.misplaced, 2),
        "cores_slowdown": round(costs.sharing.slowdown, 2),
        "redis_us": round(1e6 * costs.redis_s, 1),
        "redis_trips": round(costs.redis_trips, 1),
        "calls": costs.calls,
        "tiles": costs.tiles,
        "read_bytes": round(costs.read_bytes),
        "written_bytes": round(costs.written_bytes),
        "slot_mb": round(costs.slot_bytes / 1e6),
        "samples": len(costs.samples),
    }


def _row(scenario: Scenario, costs: Costs, seed: int, tell: Tell) -> dict[str, Any]:
    fleet, images = scenario.fleet, len(scenario.times)
    text = f"{scenario.arrivals}: {images:,} images, {fleet.workers} workers, {fleet.gpus} GPUs"
    outcome = simulate(costs, fleet, scenario.times, seed=seed, tell=lambda done: tell(text, done, images))
    most = limits(costs, fleet)
    first, second, *_ = most
    return {
        "arrivals": scenario.arrivals,
        "images": images,
        "gpus": fleet.gpus,
        "workers": fleet.workers,
        "concurrency": fleet.slots,
        "images_per_s": round(outcome.images_per_s, 2),
        "drain_s": round(outcome.drain_s, 1),
        "wait_p50_s": round(outcome.wait_p50_s, 3),
        "wait_p99_s": round(outcome.wait_p99_s, 3),
        "result_p50_s": round(outcome.result_p50_s, 3),
        "result_p99_s": round(outcome.result_p99_s, 3),
        "worker_hours": round(outcome.worker_hours, 2),
        "used_pct": outcome.used_pct,
        "limits_images_per_s": most,
        "bottleneck": first,
        "next_bottleneck": second,
    }


@contextmanager
def _progress() -> Iterator[Tell]:
    """A line on the standard error that shows the current step and its progress."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda text, done, total: bar.update(task, description=text, completed=done, total=total)


def show(figures: dict[str, Any]) -> None:
    """Print the figures as tables."""
    console = Console(width=165)
    console.print("An image costs", figures["costs"])
    _print(console, "Real and simulated workers on this machine", figures["checked"])
    _print(console, "Fleets", [_flat(row) for row in (*figures["table"], *figures["patterns"])])
    advice = [{"gpus": gpus, **each} for gpus, each in figures["recommended"].items()]
    _print(console, "Settings for a number of GPUs", advice)
    console.print("Assumed", figures["assumed"])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    left = ("worker_hours", "wait_p50_s", "result_p50_s", "used_pct", "limits_images_per_s")
    kept = {key: value for key, value in row.items() if key not in left}
    return kept | {f"{name}_pct": round(row["used_pct"][name]) for name in ("gpus", "slots", "redis")}


def _print(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(str(value).replace("_", " ") for value in row.values()))
    console.print(table)
