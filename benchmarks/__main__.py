"""Which benchmark is run, and how its figures are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from benchmarks import pickup, startup

#: Each gives one flat dictionary of figures; the unit is the end of a name.
BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {"startup": startup.measure, "pickup": pickup.measure}


def main(
    name: Annotated[str, typer.Argument(help=f"Which one: {', '.join(BENCHMARKS)} or all.")],
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on a line.")] = False,
) -> None:
    """Measure something and print its figures. Run them alone on a machine: others' load is in every figure.

    Examples: python -m benchmarks startup; python -m benchmarks pickup --json
    """
    if name != "all" and name not in BENCHMARKS:
        raise typer.BadParameter(f"{name!r}: must be one of {', '.join([*BENCHMARKS, 'all'])}")
    figures = {each: BENCHMARKS[each]() for each in (BENCHMARKS if name == "all" else [name])}
    if as_json:
        print(json.dumps(figures if name == "all" else figures[name]))
        return
    for each, values in figures.items():
        print(each)
        for key, value in values.items():
            print(f"  {key:<14} {value}")


if __name__ == "__main__":
    typer.run(main)
