"""Sends changes of jobs, batches and queues as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from redis_consumer.web.access import user_of
from redis_consumer.web.context import context_of
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.v1.jobs import check_batch
from redis_consumer.web.v1.look import MOST_JOBS, Look, Watcher, lines, look_of, watched

router = APIRouter()

#: Milliseconds after which a browser connects again, and seconds between two comments that keep proxies from closing.
RETRY_MS, COMMENT_S = 2000, 15.0
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `job`, `batch`, `queues` and `problem`: first the present state, then each change.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/events", response_class=Response, responses={**problems(404), **_EVENTS})
async def watch_events(
    request: Request,
    jobs: Annotated[str, Query(max_length=100_000, description="Ids, joined by commas.")] = "",
    batch: Annotated[str, Query(max_length=255)] = "",
    queues: Annotated[bool, Query()] = False,
) -> Response:
    """Watch jobs, a batch or the queues."""
    context, user = context_of(request), user_of(request)
    watcher = Watcher(request, user, watched(jobs.split(",")), batch, queues)
    if not (watcher.jobs or batch or queues):
        raise Problem(422, "nothing is named", field="jobs", hint="Give jobs=ID,ID or batch=ID or queues=1.")
    if len(watcher.jobs) > MOST_JOBS:
        raise Problem(422, f"names more than {MOST_JOBS} jobs", field="jobs", hint="Watch their batch.")
    if batch:
        await run_in_threadpool(check_batch, context, user, batch)
    look = look_of(context)
    if look.is_full:
        raise Problem(503, "Too many clients watch.", hint="Ask for the job each 3 s instead.")
    return StreamingResponse(_stream(look, watcher), media_type="text/event-stream", headers=_HEADERS)


async def _stream(look: Look, watcher: Watcher) -> AsyncIterator[str]:
    """Yield events until the client goes, or its user may no longer watch."""
    look.add(watcher)
    trouble = ""
    try:
        yield f"retry: {RETRY_MS}\n\n"
        while not watcher.is_over:
            try:
                await asyncio.wait_for(watcher.news.wait(), COMMENT_S)
            except asyncio.TimeoutError:
                yield ": still here\n\n"
                continue
            watcher.news.clear()
            if look.trouble and look.trouble != trouble:
                yield lines("problem", look.trouble)
            trouble = look.trouble
            if text := "".join(lines(*change) for change in look.changes(watcher)):
                yield text
    finally:
        look.remove(watcher)
