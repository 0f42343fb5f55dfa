"""Creates the Redis client, the bucket, the model server and the worker from the settings.

The command line and users' scripts start here.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from redis_consumer import settings as settings_module
from redis_consumer import traces
from redis_consumer.consumers import defaults, registry
from redis_consumer.consumers.base import Consumer
from redis_consumer.errors import ConsumerError, SettingsError, exit_code
from redis_consumer.logs import initialize_logger
from redis_consumer.options import QueueOptions, WorkerLimits
from redis_consumer.queue import JobQueue
from redis_consumer.redis import RedisClient
from redis_consumer.settings import Settings
from redis_consumer.storage import Storage
from redis_consumer.text import printable
from redis_consumer.worker.shared_status import SupervisorPipe
from redis_consumer.worker.slot_loop import SlotLoop
from redis_consumer.worker.supervisor import Supervisor
from redis_consumer.worker.threaded_slot import ThreadedSlot

if TYPE_CHECKING:
    from redis_consumer.serving.base import ModelServer  # loads numpy

logger = logging.getLogger(__name__)

#: For a person at a terminal. A worker retries without a limit.
PERSON_WAITS_S = 5.0
#: Short, since the supervisor must also watch its slots. It tries again later.
SUPERVISOR_WAITS_S = 1.0


def read_settings(
    *,
    queue: str | None = None,
    consumer: str | None = None,
    redis: str | None = None,
    bucket: str | None = None,
    model_server: str | None = None,
    log_level: str | None = None,
) -> Settings:
    """Load the settings, override them with a command's options, and use them in the whole process.

    Raises:
        SettingsError: a value is wrong.
    """
    host, port, url = _address(redis)
    load = partial(
        settings_module.load_settings,
        queue=queue,
        consumer_type=consumer,
        redis_host=host,
        redis_port=port,
        storage_bucket=bucket,
        model_server=model_server,
        log_level=log_level,
    )
    loaded = load(redis_url=url)
    if host and loaded.redis_url is not None:
        loaded = load(redis_url=f"redis://{f'[{host}]' if ':' in host else host}:{port}")
    settings_module.use(loaded)
    return loaded


def start_logs(settings: Settings) -> None:
    """Set up logging from the settings. Secrets are masked in every line."""
    secrets = (
        settings.redis_url,
        settings.redis_password,
        settings.aws_access_key_id,
        settings.aws_secret_access_key,
        settings.azure_storage_account_key,
    )
    initialize_logger(
        settings.log_level,
        settings.log_format,
        secrets=[secret.get_secret_value() for secret in secrets if secret is not None],
    )


def run_worker(
    get_consumer: Callable[..., Consumer] | None = None,
    *,
    serve: Sequence[str] = (),
    is_burst: bool = False,
    slots: int | None = None,
    threads: int | None = None,
) -> int:
    """Serve the given queues, or the queue of the settings, until a signal arrives. Return the exit code.

    Args:
        get_consumer: makes a consumer from its type and the contract's arguments ``redis_client``,
            ``storage_client`` and ``queue``. The default makes any type that the registry finds. Called in each slot.
        serve: ``TYPE=QUEUE`` for each queue, where ``QUEUE`` is the exact name of the list.
        is_burst: stop as soon as the queues are empty.
        slots: processes for each queue; ``CONCURRENCY`` by default.
        threads: threads in each slot, which run one job each; ``THREADS`` by default.
    """
    settings = settings_module.current()
    for problem in settings_module.misspelt_variables():
        logger.warning("%s", problem)
    services = [_service(text) for text in serve] or [(settings.consumer_type, defaults.queue())]
    queues = _open_queues([name for _, name in services])
    slot_count, thread_count = slots or settings.concurrency, threads or settings.threads

    def run_slot(pipe: SupervisorPipe) -> int:
        # How many slots share the machine, and the folder in which they share downloaded models.
        shared = {"concurrency": slot_count, "model_cache": settings.model_cache or str(pipe.folder)}
        settings_module.use(settings.model_copy(update=shared))
        consumer_type, name = services[pipe.queue_index]
        given = defaults.parts(name)
        if get_consumer is None:
            make = partial(registry.make_consumer, consumer_type, **given)
        else:
            make = partial(registry.make_by_script, get_consumer, consumer_type, **given)
        return _run_slot(make, pipe, queues, is_burst=is_burst, threads=thread_count)

    return Supervisor(
        queues,
        run_slot,
        slots=slot_count,
        threads=thread_count,
        limits=_limits(settings),
        health_address=settings.health_address,
        is_burst=is_burst,
    ).run()


def _open_queues(names: Sequence[str]) -> list[JobQueue]:
    """Open the queues of a worker for its supervisor."""
    if len(set(names)) < len(names):
        raise SettingsError("--serve: a queue is named twice; name each queue once")
    settings = settings_module.current()
    redis = defaults.redis_client(deadline_s=SUPERVISOR_WAITS_S)
    # The supervisor never waits for a replica: it must watch its slots.
    options = replace(defaults.queue_options(), replicas=0)
    return [JobQueue(redis, name, settings.hostname, options) for name in names]


def _limits(settings: Settings) -> WorkerLimits:
    return WorkerLimits(
        grace_period_s=settings.grace_period,
        job_timeout_s=settings.job_timeout,
        stall_timeout_s=settings.stall_timeout,
        max_rss_mb=settings.max_rss_mb,
        renew_s=min(settings.renew_interval, settings.lease_timeout / 3),
        sweep_s=settings.sweep_interval,
    )


def _service(text: str) -> tuple[str, str]:
    """Split the value of one ``--serve`` into consumer type and queue."""
    consumer_type, equals, queue = text.rpartition("=")
    if not (equals and consumer_type and queue):
        raise SettingsError(f"--serve {text!r}: must be TYPE=QUEUE, e.g. image=predict")
    return consumer_type, queue.lower()


def _run_slot(
    make_consumer: Callable[[], Consumer],
    pipe: SupervisorPipe,
    queues: Sequence[JobQueue],
    *,
    is_burst: bool,
    threads: int,
) -> int:
    settings = settings_module.current()
    names = [queue.name for queue in queues]

    def make_loop(thread: int) -> SlotLoop:
        consumer = make_consumer()
        _check_queue(consumer, names[pipe.queue_index])
        if thread == 0:
            _warn_of_options(consumer)
        return SlotLoop(
            consumer,
            pipe.of_thread(thread),
            grace_period_s=settings.grace_period,
            is_burst=is_burst,
            served=names,
        )

    def run() -> int:
        if settings.otel_exporter_otlp_endpoint:
            traces.start(settings.otel_exporter_otlp_endpoint, settings.hostname)
        try:
            if threads == 1:
                return make_loop(0).run()
            loops = [make_loop(thread) for thread in range(threads)]
            return ThreadedSlot(loops, grace_period_s=settings.grace_period).run()
        finally:
            traces.stop()

    return exit_code_of(run)


def _check_queue(consumer: Consumer, expected: str) -> None:
    """Refuse the consumer of a script that serves another queue than its worker."""
    if consumer.queue != expected:
        raise SettingsError(
            f"consumer {type(consumer).__name__}: serves queue {consumer.queue!r}, not {expected!r}; "
            f"run it with --serve TYPE={consumer.queue}"
        )


def _warn_of_options(consumer: Consumer) -> None:
    """Warn of variables whose names are similar to those of the consumer's options."""
    options = [name.upper() for name in consumer.Options.model_fields]
    for problem in set(settings_module.misspelt_variables(options)).difference(settings_module.misspelt_variables()):
        logger.warning("%s", problem)


def run_script(start_logs: Callable[[], None], get_consumer: Callable[..., Consumer]) -> int:
    """Run a worker from a user's script, with the script's own functions. Return the exit code of the process."""

    def start() -> int:
        read_settings()
        start_logs()
        return run_worker(get_consumer)

    return exit_code_of(start)


def exit_code_of(call: Callable[[], int]) -> int:
    """Call a function. Return its exit code, or print the error that it raises and return the code of that."""
    try:
        return call()
    except (ConsumerError, KeyboardInterrupt) as error:
        message = f"Error: {error}" if isinstance(error, ConsumerError) else "Interrupted"
        sys.stderr.write(f"{printable(message)}\n")
        return exit_code(error)


def open_redis(deadline_s: float = PERSON_WAITS_S) -> RedisClient:
    """Connect to Redis for a person. An error is raised after a few seconds."""
    return defaults.redis_client(deadline_s=deadline_s)


def open_queue(client: Any, name: str) -> JobQueue:
    """Open a queue to change jobs in it. ``updated_by`` of each job then names the command line of this machine."""
    options = QueueOptions(result_ttl_s=settings_module.current().result_ttl)
    return JobQueue(client, name, f"command-line-{socket.gethostname()}", options)


def open_bucket() -> Storage:
    """Open the bucket without connecting yet."""
    return defaults.storage()


def open_model_server(bucket: Storage) -> ModelServer:
    """Open the model server. A model that runs in this process comes from the bucket, or from the package."""
    return defaults.model_server(defaults.model_store(bucket))


def _address(text: str | None) -> tuple[str | None, str | None, str | None]:
    """Split the value of ``--redis`` into host and port, or give it as the URL."""
    if text is None or "://" in text:
        return None, None, text
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit()):
        raise SettingsError(f"--redis {text!r}: must be HOST:PORT or a URL, e.g. localhost:6379")
    return host.strip("[]"), port, None
