"""Holds what all routes of the web server share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection

from redis_consumer.redis import RedisClient
from redis_consumer.settings import Settings
from redis_consumer.storage import Storage

#: Seconds for which a request waits for an unavailable Redis.
REDIS_WAITS_S = 2.0


@dataclass(frozen=True)
class WebOptions:
    """Limits and addresses of the server.

    Attributes:
        waiting_jobs: waiting jobs that a user may have; 0 for any number.
        upload_bytes: largest size of an upload; 0 for any size.
        history_s: seconds for which the history of a user is kept after the last job.
    """

    waiting_jobs: int = 0
    upload_bytes: int = 0
    history_s: int = 30 * 24 * 3600


class WebRedis(RedisClient):
    """A client that many short-lived threads share: none of them keeps a connection."""

    def batch(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands together, see `RedisClient.batch`."""
        try:
            return super().batch(*commands)
        finally:
            self.end_thread()


def open_client(settings: Settings) -> WebRedis:
    """Connect to the Redis of the settings. A request waits for it for at most `REDIS_WAITS_S`."""
    return WebRedis(settings.redis_host, settings.redis_port, settings.redis_timeout, deadline_s=REDIS_WAITS_S)


@dataclass
class WebContext:
    """What all routes share.

    Attributes:
        settings: of this process.
        options: of the server.
        client: a client of Redis. It blocks, so it is used in threads only.
        storage: the bucket; the same.
        folder: for caches and half-sent uploads.
    """

    settings: Settings
    options: WebOptions
    client: WebRedis
    storage: Storage
    folder: Path
    cache: dict[str, object] = field(default_factory=dict)


def context_of(connection: HTTPConnection) -> WebContext:
    """Return the context of the application that got a request."""
    context: WebContext = connection.app.state.context
    return context
