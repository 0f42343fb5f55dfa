"""``redis-consumer settings``: shows each setting and its source."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from redis_consumer.cli import options
from redis_consumer.cli.output import console, notes, write_json
from redis_consumer.settings import Setting, load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "settings",
        epilog=notes(
            "redis-consumer settings",
            "redis-consumer settings --given",
            "REDIS_PORT=7000 redis-consumer settings --json",
        ),
    )(show_settings)


def show_settings(
    json: options.Json = False,
    given: Annotated[bool, typer.Option("--given", help="Show only settings that are not at their default.")] = False,
) -> None:
    """Show the value, source and meaning of every setting.

    Settings are read from the environment, then from .env, settings.ini and
    redis-consumer.toml in the working directory (or the TOML file that
    REDIS_CONSUMER_CONFIG names). The first source that has a value is used. Secrets
    are masked.
    """
    shown = [setting for setting in load_settings().describe() if not given or setting.source != "default"]
    if json:
        write_json([asdict(setting) for setting in shown])
    else:
        _write_table(shown)


def _write_table(shown: list[Setting]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Setting", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("From", overflow="fold")
    table.add_column("Meaning", overflow="fold")
    for setting in shown:
        style = "dim" if setting.source == "default" else "green"
        value = "" if setting.value is None else str(setting.value)
        # As Text, since rich would interpret brackets in a value as markup.
        table.add_row(Text(setting.name), Text(value), Text(setting.source, style=style), Text(setting.description))
    console().print(table)
