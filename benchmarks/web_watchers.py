"""Watches jobs over many connections at once, and measures the delay of their changes."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.redis import RedisClient

if TYPE_CHECKING:
    from benchmarks.web import Server

WATCHERS, JOBS = 1000, 100
#: Changes a second, for this long after a while without changes.
CHANGES, SECONDS, QUIET_S = 100, 20, 3.0
_PROGRESS = re.compile(rb'"progress": ?([0-9]+)')
_ID = re.compile(rb'"id": ?"predict:watched:([0-9]+)"')


def measure(client: RedisClient, server: Server) -> tuple[float, float]:
    """Watch jobs that change.

    Args:
        client: of the server's Redis.
        server: to connect to.

    Returns:
        The share of a core that the server takes, and the delay in seconds that 95 % of the changes are below.
    """
    for number in range(JOBS):
        client.hset(_key(number), mapping={"status": "predicting", "progress": "0", "original_name": "a.tif"})
    core, delays = asyncio.run(_watch(client, server))
    if len(delays) < WATCHERS:
        raise RuntimeError(f"{WATCHERS} watchers received only {len(delays)} changes")
    return core, float(np.percentile(delays, 95))


def _key(number: int) -> str:
    return f"predict:watched:{number}"


async def _watch(client: RedisClient, server: Server) -> tuple[float, list[float]]:
    sent: dict[tuple[int, int], float] = {}
    delays: list[float] = []
    tasks = []
    for number in range(WATCHERS):
        tasks.append(asyncio.create_task(_listen(server.port, number % JOBS, sent, delays)))
        await asyncio.sleep(0.002)
    await asyncio.sleep(QUIET_S)
    begin, cpu = time.monotonic(), server.cpu_s
    for change in range(CHANGES * SECONDS):
        number, progress = change % JOBS, 1 + change // JOBS
        await asyncio.sleep(max(begin + change / CHANGES - time.monotonic(), 0))
        sent[number, progress] = time.monotonic()
        fields = {"progress": str(progress), "updated_at": str(change)}
        await asyncio.to_thread(client.hset, _key(number), mapping=fields)
    await asyncio.sleep(QUIET_S)
    core = (server.cpu_s - cpu) / (time.monotonic() - begin)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return core, delays


async def _listen(port: int, job: int, sent: dict[tuple[int, int], float], delays: list[float]) -> None:
    """Read events of one job, and note the delay of each change."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        request = f"GET /api/v1/events?jobs={_key(job)} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(request.encode())
        while line := await reader.readline():
            found = _PROGRESS.search(line) if _ID.search(line) else None
            if found and (begin := sent.get((job, int(found[1])))):
                delays.append(time.monotonic() - begin)
    finally:
        writer.close()
