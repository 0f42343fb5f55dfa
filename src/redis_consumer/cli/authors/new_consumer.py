"""``redis-consumer new-consumer``: writes a new package with a consumer."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from redis_consumer.cli.authors.scaffold import first_steps, package_of, write_package
from redis_consumer.cli.output import notes


class Kind(str, Enum):
    """The kind of consumer."""

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
    name: Annotated[str, typer.Argument(help="Name of the consumer, its queue and its package, e.g. cell-counter.")],
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            help="image: measures the cells that a model finds. model: uses your own model, with your own input and "
            "output. files: handles any file, without a model.",
        ),
    ] = Kind.IMAGE,
    into: Annotated[Path, typer.Option("--into", file_okay=False, help="Parent folder for the new package.")] = Path(),
) -> None:
    """Write a package for your own consumer.

    It contains a class with options, tests, a Dockerfile and values for the Helm
    chart. It works without changes: its tests pass, and a worker can run it by name.
    """
    files = write_package(name, kind.value, into)
    typer.echo(f"Wrote {into / name}: {len(files)} files. Edit src/{package_of(name)}/consumer.py")
    typer.echo("Next steps (the last command needs a Redis on this machine):")
    for step in first_steps(name, kind.value, into / name):
        typer.echo(f"  {step}")
