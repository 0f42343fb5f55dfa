"""``redis-consumer consumers``: lists consumers and their options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from redis_consumer.app import read_settings
from redis_consumer.cli import options
from redis_consumer.cli.output import console, notes, write_json
from redis_consumer.consumers import catalogue
from redis_consumer.consumers.catalogue import Listed
from redis_consumer.consumers.options import Option


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer consumers",
            "redis-consumer consumers zip",
            "redis-consumer consumers my_package.my_consumer:MyConsumer --json",
        )
    )(consumers)


def consumers(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Consumer to show with its options: a built-in name, an entry point or package.module:Class."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the consumers that a worker can run, or show one with its options.

    The list has the built-in consumers, those of installed packages and the one
    that CONSUMER_TYPE names. It says where each comes from and what it does. For a
    consumer that cannot run, it gives the reason.
    """
    settings = read_settings()
    if name is not None:
        listed = catalogue.describe(name)
        if json:
            write_json(_as_data(listed))
        else:
            _write_one(listed)
        return
    found = catalogue.list_consumers([settings.consumer_type] if ":" in settings.consumer_type else [])
    if json:
        write_json([_as_data(listed) for listed in found])
    else:
        _write_all(found)


def _as_data(listed: Listed) -> dict[str, Any]:
    """Return the data for scripts, with the job field that can set an option; None for an operator's option."""
    data = asdict(listed)
    data["options"] = [
        {**option, "field": option["name"] if option["is_per_job"] else None} for option in data["options"]
    ]
    return data


def _write_all(found: Sequence[Listed]) -> None:
    table = _table("Consumer", "From", "What it does")
    for listed in found:
        what = Text(f"✗ {listed.error}", style="red") if listed.error else Text(listed.help)
        table.add_row(Text(listed.name), Text(listed.origin), what)
    console().print(table)


def _write_one(listed: Listed) -> None:
    screen = console()
    screen.print(Text(f"{listed.name}: {listed.help}" if listed.help else listed.name))
    screen.print(Text(f"{listed.path}, {listed.origin}", style="dim"), soft_wrap=True)
    if listed.options:
        screen.print()
        write_options(listed.options)
    else:
        screen.print("This consumer has no options.")


def write_options(shown: Sequence[Option]) -> None:
    """Print a table of a consumer's options."""
    table = _table("Variable", "Field of a job", "Value", "Default", "Meaning")
    for option in shown:
        default = Text("must be given", style="yellow") if option.default is None else Text(option.default)
        field = Text(option.name) if option.is_per_job else Text("operator only", style="dim")
        table.add_row(Text(option.variable), field, Text(option.kind), default, Text(option.description))
    console().print(table)


def _table(*columns: str) -> Any:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
