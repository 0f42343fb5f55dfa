"""The no-op job of arq. Run as a module, it pushes jobs."""

import asyncio
import os
import sys
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

#: Jobs that are pushed at once.
TOGETHER = 20
#: Else it logs two lines for each job.
QUIET = {"version": 1, "disable_existing_loggers": False}


async def nothing(_context: Any) -> None:
    """Do nothing."""


class WorkerSettings:
    """What its worker runs."""

    functions = (nothing,)
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    max_jobs = 200
    poll_delay = 0.01


async def push(jobs: int) -> None:
    """Fill the queue."""
    pool = await create_pool(WorkerSettings.redis_settings)
    for _ in range(jobs // TOGETHER):
        await asyncio.gather(*(pool.enqueue_job("nothing") for _ in range(TOGETHER)))
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(push(int(sys.argv[1])))
