"""Lists all commands, in the groups in which the help shows them, and loads the module of the one that is run."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from redis_consumer import __version__
from redis_consumer.cli.output import exit_codes, notes

#: Commands and their help by group; the most used ones are first. The module of a command is found by their names.
PANELS = {
    "Images": {
        "submit": "Submit a job for each file, and download the results with --wait.",
        "status": "Show one job, or the queues and the jobs in them.",
        "cancel": "Cancel waiting or running jobs.",
        "reproduce": "Run a finished job again from its record and compare the results.",
        "demo": "Segment an example image or your own, without any service, and write a report.",
    },
    "Workers": {
        "run": "Run a worker, which takes jobs from its queues until it is stopped.",
        "doctor": "Check settings, Redis, bucket, model server and models, and show what to fix.",
        "settings": "Show the value, source and meaning of the settings that a consumer reads.",
        "health": "Check the worker at HEALTH_ADDRESS. For container health checks.",
    },
    "Server": {
        "start": "Run everything on this machine: Redis, a worker and the web server.",
        "serve": "Run the web server: the page, API v1 and the kiosk's API.",
        "tokens": "Make, list and revoke the tokens with which users log in to the web server.",
    },
    "Queues": {
        "queues": "Show waiting and running jobs, dead letters and workers of each queue.",
        "dead": "List, retry or drop dead letters: jobs that failed for a reason other than their input.",
        "sweep": "Return jobs of dead workers to their queues and print their keys.",
        "prune": "Remove jobs that ended long ago, with their results.",
        "metrics": "Serve queue metrics to Prometheus, reading Redis on each scrape.",
    },
    "Authors": {
        "new-consumer": "Write a package for your own consumer.",
        "consumers": "List the consumers that a worker can run, or show one with its options.",
    },
}


class _Command(TyperCommand):
    """Stands for a command in help and completion. Its module is loaded only when the command is run."""

    def make_context(self, *args: Any, **arguments: Any) -> Any:
        """Load the command, and parse its arguments."""
        return load_command(self.name or "").make_context(*args, **arguments)


class _Commands(TyperGroup):
    def __init__(self, **arguments: Any) -> None:
        """Put each command into its panel."""
        super().__init__(**arguments)
        for panel, helps in PANELS.items():
            for name, text in helps.items():
                self.commands[name] = _Command(name, help=text, rich_help_panel=panel)

    def invoke(self, ctx: Any) -> Any:
        """Run a command and turn our errors into exit codes."""
        with exit_codes():
            return super().invoke(ctx)


def load_command(name: str) -> Any:
    """Load the module of a command and give the command."""
    group = next(panel.lower() for panel, helps in PANELS.items() if name in helps)
    module = import_module(f"redis_consumer.cli.{group}.{name.replace('-', '_')}")
    commands = typer.Typer(rich_markup_mode="rich", add_completion=False)
    module.register(commands)
    return typer.main.get_group(commands).commands[name]


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
        typer.echo(f"redis-consumer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Segment microscopy images with workers that take jobs from a Redis queue."""
