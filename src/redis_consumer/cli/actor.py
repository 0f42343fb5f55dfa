"""Opens the queue that a command changes, and names this machine as the one that made the change."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis_consumer.queue import JobQueue


def open_queue(client: Any, name: str) -> JobQueue:
    """Open a queue to change jobs in it. ``updated_by`` of each job then names the command line of this machine."""
    from redis_consumer import settings
    from redis_consumer.queue import JobQueue

    ttl_s = settings.current().result_ttl
    return JobQueue(client, name, f"command-line-{socket.gethostname()}", result_ttl_s=ttl_s)
