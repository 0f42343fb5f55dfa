"""``redis-consumer metrics``: how full are the queues, for Prometheus, whether workers live or not?"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redis_consumer.cli import options
from redis_consumer.cli.output import notes, say

if TYPE_CHECKING:
    from redis_consumer.cli.queue_state import QueueView
    from redis_consumer.metrics import Metric
    from redis_consumer.supervisor.pages import Reply

#: Seconds for Redis to answer, less than Prometheus waits for us.
REDIS_WAITS_S = 2.0
#: Seconds for which figures are told again: reading them takes time where Redis hangs or has many keys.
KEPT_S = 1.5

Figures = dict["Metric", dict[tuple[str, ...], float]]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes("redis-consumer metrics", "redis-consumer metrics --queue predict --listen 127.0.0.1:9102")
    )(metrics)


def metrics(
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            "-q",
            help="Queue, and no other; repeatable. QUEUE and SEGMENTATION_QUEUE with their archives' if left out.",
            metavar="NAME",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="Where to answer GET /metrics and GET /live.", metavar="HOST:PORT")
    ] = "0.0.0.0:9102",
    redis: options.Redis = None,
) -> None:
    """Tell Prometheus how the queues are, read from Redis when it asks, until Ctrl-C or SIGTERM.

    Needs no worker: whoever scales workers from zero can go by it. What workers
    themselves count is told by each of them, at HEALTH_ADDRESS.
    """
    from redis_consumer.cli import connect
    from redis_consumer.cli.embedded import stop_on_signals
    from redis_consumer.cli.queue_state import chosen_queues
    from redis_consumer.supervisor.pages import Pages

    settings = connect.read_settings(redis=redis)
    connect.start_logs(settings)
    names = chosen_queues(settings, queue, is_exact=True)
    client = connect.open_redis(REDIS_WAITS_S)
    selector = selectors.DefaultSelector()
    pages = Pages(listen, pages_of(client, names), selector, name="--listen ")
    say(f"Telling of {', '.join(names)} at port {pages.port}")
    try:
        with stop_on_signals():
            while True:
                for key, _ in selector.select():
                    key.data()
    except KeyboardInterrupt:
        return
    finally:
        pages.close()


def pages_of(client: Any, names: list[str]) -> Mapping[str, Callable[[], Reply]]:
    """What is answered by path: ``/metrics``, also where Redis is away, and ``/live`` for a probe."""
    from redis_consumer import metrics
    from redis_consumer.supervisor.pages import Reply, kept

    def give_metrics() -> Reply:
        return Reply(metrics.text_of_queues(read_figures(client, names)), content_type=metrics.CONTENT_TYPE)

    return {"/metrics": kept(give_metrics, KEPT_S), "/live": lambda: Reply.of_data({"queues": names})}


def read_figures(client: Any, names: list[str]) -> Figures:
    """Read what is told of queues; that Redis is away is told too.

    Raises:
        SettingsError: a name is that of a key that is no list, or Redis wants another password.
    """
    from redis_consumer.cli.queue_state import read_queues
    from redis_consumer.errors import RedisUnavailable
    from redis_consumer.metrics import queues

    try:
        views = read_queues(client, names, has_foreign=True)
        memory = client.info("memory")
    except RedisUnavailable:
        return {queues.UP: {(): 0.0}}
    limit = memory["maxmemory"] or memory["total_system_memory"]
    sizes: dict[tuple[str, ...], float] = {("used",): memory["used_memory"], ("limit",): limit}
    return {queues.UP: {(): 1.0}, **figures_of(views), queues.MEMORY: sizes}


def figures_of(views: list[QueueView]) -> Figures:
    """What is told of queues, from how they are."""
    from redis_consumer.metrics import queues

    oldest = {(view.queue,): view.oldest_waiting_s if view.waiting else 0.0 for view in views}
    return {
        queues.JOBS: {
            (view.queue, state): float(count)
            for view in views
            for state, count in (("waiting", view.waiting), ("running", view.running), ("dead", view.dead))
        },
        queues.UNFINISHED: {(view.queue,): float(view.waiting + view.running + view.parents) for view in views},
        # Who pushed it may not have said when.
        queues.OLDEST: {labels: age_s for labels, age_s in oldest.items() if age_s is not None},
        queues.WORKERS: {(view.queue,): float(view.workers) for view in views},
        queues.ENDED: {(view.queue, status): count for view in views for status, count in _ended(view).items()},
        queues.ATTEMPTS: {
            (view.queue,): _sum(view, "returned", "divided", "lapsed") + view.completed for view in views
        },
        queues.SWEPT: {(view.queue,): _sum(view, "lapsed", "stranded") for view in views},
    }


def _ended(view: QueueView) -> dict[str, float]:
    """Jobs that ended by how, from what is counted in Redis."""
    return {
        "done": view.completed - _sum(view, "failed", "dead"),
        "failed": _sum(view, "failed", "cancelled"),
        "dead": _sum(view, "dead", "exhausted"),
    }


def _sum(view: QueueView, *names: str) -> float:
    return float(sum(view.totals.get(name, 0) for name in names))
