"""The no-op job of rq. Run as a module, it pushes jobs."""

import os
import sys

from redis import Redis
from rq import Queue

#: Read by its worker, which takes this module as its configuration.
REDIS_URL = os.environ["REDIS_URL"]


def nothing() -> None:
    """Do nothing."""


def push(jobs: int) -> None:
    """Fill the queue."""
    queue = Queue(connection=Redis.from_url(REDIS_URL))
    queue.enqueue_many([Queue.prepare_data("benchmarks.peers.rq.nothing", timeout=180) for _ in range(jobs)])


if __name__ == "__main__":
    push(int(sys.argv[1]))
