"""The no-op job of taskiq. Run as a module, it pushes jobs."""

import asyncio
import os
import sys

from taskiq_redis import RedisStreamBroker

#: Jobs that are pushed at once.
TOGETHER = 20

#: Reads from the first message on, which was there before its worker.
broker = RedisStreamBroker(os.environ["REDIS_URL"], consumer_id="0", xread_count=1000)


@broker.task
async def nothing() -> None:
    """Do nothing."""


async def push(jobs: int) -> None:
    """Fill the queue."""
    await broker.startup()
    for _ in range(jobs // TOGETHER):
        await asyncio.gather(*(nothing.kiq() for _ in range(TOGETHER)))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(push(int(sys.argv[1])))
