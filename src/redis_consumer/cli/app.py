"""Lists all commands, in the groups in which the help shows them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from redis_consumer.cli import (
    cancel,
    consumers,
    dead,
    demo,
    doctor,
    health,
    metrics,
    new_consumer,
    prune,
    queues,
    reproduce,
    run,
    show_settings,
    status,
    submit,
    sweep,
)
from redis_consumer.cli.output import exit_codes, notes

#: Commands by the panel of the help that shows them; the most used ones are first.
PANELS = {
    "Images": ("submit", "status", "cancel", "reproduce", "demo"),
    "Workers": ("run", "doctor", "settings", "health"),
    "Queues": ("queues", "dead", "sweep", "prune", "metrics"),
    "Authors": ("new-consumer", "consumers"),
}


class _Commands(TyperGroup):
    def __init__(self, **arguments: Any) -> None:
        """Sort the commands into their panels."""
        super().__init__(**arguments)
        for panel, names in PANELS.items():
            for name in names:
                self.commands[name] = command = self.commands.pop(name)
                command.rich_help_panel = panel  # type: ignore[attr-defined]

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and turn our errors into exit codes."""
        with exit_codes():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=notes("redis-consumer demo", "redis-consumer submit cells.tif --wait", "redis-consumer run --queue predict"),
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from redis_consumer import __version__

        typer.echo(f"redis-consumer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Segment microscopy images with workers that take jobs from a Redis queue."""


for module in (
    run,
    submit,
    status,
    reproduce,
    cancel,
    queues,
    metrics,
    dead,
    sweep,
    prune,
    show_settings,
    consumers,
    doctor,
    health,
    demo,
    new_consumer,
):
    module.register(app)
