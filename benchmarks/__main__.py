"""Runs a benchmark by its name and prints its figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import (
    accuracy,
    big,
    codec,
    job,
    memory,
    outputs,
    pickup,
    postprocess,
    queue,
    real_tracks,
    scaling,
    serving,
    startup,
    tracking,
    web,
)
from benchmarks import zip as archives
from chaos import archives as chaos_archives
from chaos import jobs as chaos_jobs
from redis_consumer.errors import SettingsError

#: Each gives one dictionary of figures; the unit is the end of a name.
BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "startup": startup.measure,
    "pickup": pickup.measure,
    "queue": queue.measure,
    "codec": codec.measure,
    "serving": serving.measure,
    "job": job.measure,
    "big": big.measure,
    "memory": memory.measure,
    "outputs": outputs.measure,
    "postprocess": postprocess.measure,
    "zip": archives.measure,
    "tracking": tracking.measure,
    "scaling": scaling.measure,
    "web": web.measure,
}

#: Benchmarks with too many figures for a list.
SHOWN = {"scaling": scaling.show}

#: Not among them: one judges, by exit code 1, the other needs a folder of images; both take options of their own.
CHAOS, ACCURACY = "chaos", "accuracy"


def main(
    name: Annotated[
        str, typer.Argument(help=f"Which one: {', '.join(BENCHMARKS)}, all of these, {CHAOS} or {ACCURACY}.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on a line.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help=f"Jobs of {CHAOS}.")] = 100,
    seed: Annotated[
        int | None,
        typer.Option(help=f"Seed of {CHAOS}, a random one where none is given, and of scaling, {scaling.SEED}."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=10, help=f"Length of {CHAOS}; 0.22 for each job.")] = None,
    huge: Annotated[
        bool, typer.Option("--huge", help="big with 40,000 x 40,000 px in windows, zip also with 10,000 images.")
    ] = False,
    sentinel: Annotated[bool, typer.Option("--sentinel", help=f"{CHAOS} with a Sentinel and a failover.")] = False,
    images: Annotated[int, typer.Option(min=20, help="scaling: images of a simulation.")] = scaling.IMAGES,
    side: Annotated[int, typer.Option(min=16, help="scaling: sides of the image in pixels.")] = scaling.SIDE_PX,
    tile_ms: Annotated[
        float, typer.Option(min=0.01, help="scaling: time of a GPU for a tile of 512 x 512 px.")
    ] = scaling.TILE_MS,
    call_ms: Annotated[
        float, typer.Option(min=0, help="scaling: time of a GPU for a call, beside its tiles.")
    ] = scaling.CALL_MS,
    archive: Annotated[bool, typer.Option("--archives", help=f"{CHAOS} with archives and movies.")] = False,
    data: Annotated[
        Path | None, typer.Option(help=f"{ACCURACY}: folder with images/ and labels/; tracking: .npz with points.")
    ] = None,
    model: Annotated[
        str, typer.Option(help=f"{ACCURACY}: a packaged model, or an ONNX file beside its card.toml.")
    ] = accuracy.MODEL,
    part: Annotated[
        str | None, typer.Option(help=f"{ACCURACY}: only train, 'by id', 'by experiment' or 'held out'.")
    ] = None,
) -> None:
    """Measure something and print its figures. Run nothing else on the machine: other load changes every figure.

    Examples: python -m benchmarks startup; python -m benchmarks chaos --jobs 100 --seed 7 --json
    """
    if name not in (CHAOS, ACCURACY, "all", *BENCHMARKS):
        raise typer.BadParameter(f"{name!r}: must be one of {', '.join([*BENCHMARKS, 'all', CHAOS, ACCURACY])}")
    if name == CHAOS and archive:
        figures = {CHAOS: chaos_archives.measure(jobs=jobs, seed=seed, seconds=seconds)}
    elif name == CHAOS:
        figures = {CHAOS: chaos_jobs.measure(jobs=jobs, seed=seed, seconds=seconds, is_sentinel=sentinel)}
    elif name == ACCURACY:
        figures = _measure({ACCURACY: partial(accuracy.measure, data, model, part)})
    else:
        runs = BENCHMARKS | {
            "scaling": partial(
                scaling.measure,
                images=images,
                seed=scaling.SEED if seed is None else seed,
                tile_ms=tile_ms,
                call_ms=call_ms,
                side_px=side,
            )
        }
        if data is not None:
            runs |= {"tracking": partial(real_tracks.measure, data)}
        if huge:
            runs |= {"big": partial(big.measure, is_huge=True), "zip": partial(archives.measure, is_huge=True)}
        figures = _measure(runs if name == "all" else {name: runs[name]})
    _show(name, figures, as_json=as_json)
    if figures.get(CHAOS, {}).get("broken"):
        raise typer.Exit(1)


def _measure(runs: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    try:
        return {name: run() for name, run in runs.items()}
    except SettingsError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


def _show(name: str, figures: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures if name == "all" else figures[name]))
        return
    for each, values in figures.items():
        print(each)
        if each in SHOWN:
            SHOWN[each](values)
            continue
        for key, value in values.items():
            print(f"  {key:<14} {value}")


if __name__ == "__main__":
    typer.run(main)
