"""``redis-consumer metrics``: serves queue metrics to Prometheus, also when no worker runs."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from redis_consumer.app import open_redis, read_settings, start_logs
from redis_consumer.cli import options
from redis_consumer.cli.embedded import stop_on_signals
from redis_consumer.cli.output import notes, say
from redis_consumer.client.queue_state import QueueView, read_queues
from redis_consumer.errors import RedisUnavailable
from redis_consumer.metrics import CONTENT_TYPE, Metric, queues, text_of_queues
from redis_consumer.worker.http_endpoint import HttpEndpoint, Reply, kept

#: Seconds to wait for Redis. Prometheus waits longer than this for a scrape.
REDIS_WAITS_S = 2.0
#: Seconds for which metrics are reused. Reading them is slow if Redis hangs or has many keys.
KEPT_S = 1.5

Figures = dict[Metric, dict[tuple[str, ...], float]]


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
            help="Queue, without its -zip queue; repeatable. Default: QUEUE, SEGMENTATION_QUEUE and their -zip queues.",
            metavar="NAME",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="Address that serves GET /metrics and GET /live.", metavar="HOST:PORT")
    ] = "0.0.0.0:9102",
    redis: options.Redis = None,
) -> None:
    """Serve queue metrics to Prometheus, reading Redis on each scrape.

    Runs until Ctrl-C or SIGTERM. It needs no worker, so it can be used to scale
    workers from zero. Each worker serves its own metrics at HEALTH_ADDRESS.
    """
    settings = read_settings(redis=redis)
    start_logs(settings)
    names = options.chosen_queues(settings, queue, is_exact=True)
    client = open_redis(REDIS_WAITS_S)
    selector = selectors.DefaultSelector()
    pages = HttpEndpoint(listen, pages_of(client, names), selector, name="--listen ")
    say(f"Serving metrics of {', '.join(names)} on port {pages.port}")
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
    """Return the reply for each path: ``/metrics``, also while Redis is unavailable, and ``/live`` for a probe."""

    def give_metrics() -> Reply:
        return Reply(text_of_queues(read_figures(client, names)), content_type=CONTENT_TYPE)

    return {"/metrics": kept(give_metrics, KEPT_S), "/live": lambda: Reply.of_data({"queues": names})}


def read_figures(client: Any, names: list[str]) -> Figures:
    """Read the metrics of queues. If Redis is unavailable, they contain only that.

    Raises:
        SettingsError: a name belongs to a key that is not a list, or Redis refuses the password.
    """
    try:
        views = read_queues(client, names, has_foreign=True)
        memory = client.info("memory")
    except RedisUnavailable:
        return {queues.UP: {(): 0.0}}
    limit = memory["maxmemory"] or memory["total_system_memory"]
    sizes: dict[tuple[str, ...], float] = {("used",): memory["used_memory"], ("limit",): limit}
    return {queues.UP: {(): 1.0}, **figures_of(views), queues.MEMORY: sizes}


def figures_of(views: list[QueueView]) -> Figures:
    """Compute the metrics of queues from their state."""
    oldest = {(view.queue,): view.oldest_waiting_s if view.waiting else 0.0 for view in views}
    return {
        queues.JOBS: {
            (view.queue, state): float(count)
            for view in views
            for state, count in (("waiting", view.waiting), ("running", view.running), ("dead", view.dead))
        },
        queues.UNFINISHED: {(view.queue,): float(view.waiting + view.running + view.parents) for view in views},
        # A producer may have left out the time.
        queues.OLDEST: {labels: age_s for labels, age_s in oldest.items() if age_s is not None},
        queues.WORKERS: {(view.queue,): float(view.workers) for view in views},
        queues.ENDED: {(view.queue, status): count for view in views for status, count in _ended(view).items()},
        queues.ATTEMPTS: {
            (view.queue,): _sum(view, "returned", "divided", "lapsed") + view.completed for view in views
        },
        queues.SWEPT: {(view.queue,): _sum(view, "lapsed", "stranded") for view in views},
    }


def _ended(view: QueueView) -> dict[str, float]:
    """Compute the number of ended jobs by status from the counts in Redis."""
    return {
        "done": view.completed - _sum(view, "failed", "dead"),
        "failed": _sum(view, "failed", "cancelled"),
        "dead": _sum(view, "dead", "exhausted"),
    }


def _sum(view: QueueView, *names: str) -> float:
    return float(sum(view.totals.get(name, 0) for name in names))
