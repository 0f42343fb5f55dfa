"""``redis-consumer new-consumer``: writes a package for an author to begin with."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from redis_consumer.cli.output import notes


class Kind(str, Enum):
    """What the consumer works on."""

    IMAGE = "image"
    MODEL = "model"
    FILES = "files"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "new-consumer",
        epilog=notes(
            "redis-consumer new-consumer cell-counter", "redis-consumer new-consumer checksums --kind files --into work"
        ),
    )(new_consumer)


def new_consumer(
    name: Annotated[str, typer.Argument(help="Name of consumer, queue and package, e.g. cell-counter.")],
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            help="image: cells are found by any model, you go on from there. model: a model of your own, you say what "
            "goes in and what comes out. files: any files, no model.",
        ),
    ] = Kind.IMAGE,
    into: Annotated[Path, typer.Option("--into", file_okay=False, help="Folder to make the package's in.")] = Path(),
) -> None:
    """Write a package with a consumer of your own: class, options, tests, Dockerfile and values for the Helm chart.

    It works as it is: its tests pass, and a worker runs it by its name.
    """
    from redis_consumer.cli.scaffold import first_steps, package_of, write_package

    files = write_package(name, kind.value, into)
    typer.echo(f"Wrote {into / name}: {len(files)} files. Yours to change: src/{package_of(name)}/consumer.py")
    typer.echo("Next (the last command needs a Redis on this machine):")
    for step in first_steps(name, kind.value, into / name):
        typer.echo(f"  {step}")
