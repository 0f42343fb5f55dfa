"""``redis-consumer queues``: shows the state of queues, once or repeatedly."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from redis_consumer.app import open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.embedded import stop_on_signals
from redis_consumer.cli.output import console, duration, notes, say, write_json
from redis_consumer.client.queue_state import QueueView, read_queues
from redis_consumer.client.standstill import explain, explained
from redis_consumer.client.unserved import unserved_in_words, unserved_queues
from redis_consumer.client.workers import read_facts

Look = Callable[[], list[QueueView]]
Show = Callable[[list[QueueView]], None]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer queues",
            "redis-consumer queues --queue predict --queue track --watch",
            "redis-consumer queues --json",
        )
    )(queues)


def queues(
    queue: options.Queues = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, help="Seconds between updates with --watch.", metavar="SECONDS")
    ] = 2.0,
    foreign: Annotated[
        bool,
        typer.Option("--foreign", help="Also count jobs that other software holds. Scans all keys of Redis."),
    ] = False,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """Show waiting and running jobs, dead letters and workers of each queue.

    It also shows the longest wait, and the rate of completed jobs in the last ten
    minutes. Without --watch it also says why jobs wait and what to do, and names all
    other queues in which jobs wait but that no worker serves. With --watch and --json, each update is one line.
    """
    settings = read_settings(redis=redis)
    names = options.chosen_queues(settings, queue)
    client = open_redis()

    def look() -> list[QueueView]:
        return read_queues(client, names, has_foreign=foreign)

    if watch:
        watch_queues(look, console(), interval_s=interval, is_json=json)
        return
    views, unserved = look(), unserved_queues(client, say)
    facts = read_facts(client, names, views)
    found = {each.view.queue: explain(each, job_timeout_s=settings.job_timeout) for each in facts}
    if json:
        data = as_data(views)
        data["queues"] = [{**each, **asdict(found[each["queue"]])} for each in data["queues"]]
        write_json({**data, "unserved": unserved})
        return
    console().print(table_of(views))
    for line in explained(found):
        console().print(line, style="yellow", markup=False)
    if others := {name: waiting for name, waiting in unserved.items() if name not in found}:
        console().print(unserved_in_words(others), style="yellow", markup=False)


def watch_queues(
    look: Look,
    screen: Console,
    *,
    interval_s: float,
    is_json: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show queues repeatedly, until Ctrl-C or SIGTERM.

    Args:
        look: reads the queues.
        screen: where they are shown. A terminal is redrawn in place; elsewhere, each table follows the last.
        interval_s: seconds between updates.
        is_json: write each update as one line of JSON instead.
        sleep: waits for a number of seconds.
    """
    try:
        with stop_on_signals(), _display(screen, is_json=is_json) as show:
            while True:
                show(look())
                sleep(interval_s)
    except KeyboardInterrupt:
        return


@contextmanager
def _display(screen: Console, *, is_json: bool) -> Iterator[Show]:
    if is_json:
        yield _write_line
    elif screen.is_terminal:
        with Live(console=screen, auto_refresh=False) as live:
            yield lambda views: live.update(table_of(views), refresh=True)
    else:
        yield lambda views: screen.print(table_of(views))


def _write_line(views: list[QueueView]) -> None:
    sys.stdout.write(json_module.dumps(as_data(views), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def as_data(views: list[QueueView]) -> dict[str, Any]:
    """Return the state of queues as data for scripts."""
    read_at = datetime.fromtimestamp(max((view.read_at_s for view in views), default=0.0), timezone.utc)
    return {"read_at": read_at.isoformat(), "queues": [view.as_data() for view in views]}


def table_of(views: list[QueueView]) -> Table:
    """Build the table of queues. Values that need attention are coloured."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Queue", overflow="fold")
    for name in ("Waiting", "Running", "Dead letters", "Longest wait", "Workers", "Jobs/min"):
        table.add_column(name, justify="right")
    for view in views:
        table.add_row(Text(view.queue), *_cells(view))
    return table


def _cells(view: QueueView) -> Iterator[Text]:
    yield Text(str(view.waiting))
    yield Text(str(view.running))
    yield Text(str(view.dead), style="red" if view.dead else "")
    yield Text("" if view.oldest_waiting_s is None else duration(view.oldest_waiting_s))
    yield Text(str(view.workers), style="yellow" if view.waiting and not view.workers else "")
    yield Text(f"{view.jobs_per_minute:.1f}")
