"""The no-op job of saq. Run as a module, it pushes jobs."""

import asyncio
import os
import sys
from typing import Any

from saq import Queue

#: Jobs that are pushed at once.
TOGETHER = 20

queue = Queue.from_url(os.environ["REDIS_URL"])


async def nothing(_context: Any) -> None:
    """Do nothing."""


settings = {"queue": queue, "functions": [nothing], "concurrency": 100}


async def push(jobs: int) -> None:
    """Fill the queue."""
    for _ in range(jobs // TOGETHER):
        await asyncio.gather(*(queue.enqueue("nothing") for _ in range(TOGETHER)))
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(push(int(sys.argv[1])))
