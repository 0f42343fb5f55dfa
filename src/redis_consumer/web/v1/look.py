"""Reads what watchers watch, once for all of them, and only while there are watchers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from redis_consumer.client.watch import read_fields
from redis_consumer.errors import ConsumerError
from redis_consumer.web.access import User, is_still, may_see
from redis_consumer.web.context import WebContext
from redis_consumer.web.problems import problem_of
from redis_consumer.web.v1.batches import batch_data
from redis_consumer.web.v1.job_data import job_data, places_of, queue_of_job, read_hashes
from redis_consumer.web.v1.kinds import kept, kind_names
from redis_consumer.web.v1.queues import queues_data

#: Seconds between two looks.
BEAT_S = 0.5
#: Watchers at once, and jobs that one of them can watch.
MOST_WATCHERS, MOST_JOBS = 2000, 200
#: Fields of a hash by whose change the job is read again.
_MARKS = ("updated_at", "status", "progress", "labels_version")
QUEUES = "queues"


@dataclass(eq=False)
class Watcher:
    """What one connection watches.

    Attributes:
        request: of the connection.
        user: who watches.
        jobs: ids.
        batch: id; empty for none.
        has_queues: whether the queues are watched.
        seen: the last text that was sent, by what it is of.
        news: set when there is something to send, or the watcher must go.
        is_over: whether its user may no longer watch.
    """

    request: HTTPConnection
    user: User
    jobs: tuple[str, ...] = ()
    batch: str = ""
    has_queues: bool = False
    seen: dict[str, str] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    @property
    def names(self) -> list[str]:
        """What is watched."""
        return [*self.jobs, *([f"batch {self.batch}"] if self.batch else []), *([QUEUES] if self.has_queues else [])]


@dataclass
class _Known:
    """A job as it was read last, and its place and text then."""

    marks: list[str | None]
    fields: dict[str, str]
    place: dict[str, Any] | None = None
    text: str = ""


class Look:
    """One look at Redis each `BEAT_S` for all watchers, and none without a watcher.

    Args:
        context: of the server.

    Attributes:
        trouble: a problem as JSON while Redis can't be read; else empty.
    """

    def __init__(self, context: WebContext) -> None:
        self.trouble = ""
        self._context = context
        self._watchers: set[Watcher] = set()
        self._texts: dict[str, tuple[str, str]] = {}
        self._known: dict[str, _Known] = {}
        self._counted: dict[str, dict[str, tuple[str, int]]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more watchers are taken."""
        return len(self._watchers) >= MOST_WATCHERS

    def add(self, watcher: Watcher) -> None:
        """Start to look for a watcher."""
        self._watchers.add(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, watcher: Watcher) -> None:
        """Stop to look for a watcher; the last one ends the looks."""
        self._watchers.discard(watcher)
        if not self._watchers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._texts.clear()
            self._known.clear()
            self._counted.clear()

    def changes(self, watcher: Watcher) -> list[tuple[str, str]]:
        """Return kind and text of what has changed since the last call for a watcher."""
        found = []
        for name in watcher.names:
            text, owner = self._texts.get(name, ("", ""))
            if text and watcher.seen.get(name) != text and (name == QUEUES or may_see(watcher.user, {"owner": owner})):
                watcher.seen[name] = text
                found.append((QUEUES if name == QUEUES else "batch" if name.startswith("batch ") else "job", text))
        return found

    async def _run(self) -> None:
        while self._watchers:
            started = time.monotonic()
            trouble = ""
            try:
                await run_in_threadpool(self._look, list(self._watchers))
            except ConsumerError as error:
                trouble = json.dumps(problem_of(error).as_data())
            is_news, self.trouble = trouble != self.trouble, trouble
            for watcher in self._watchers:
                watcher.is_over = not is_still(watcher.request)
                # Most watchers have no news at most looks, and are not woken.
                if is_news or watcher.is_over or self._has_news(watcher):
                    watcher.news.set()
            await asyncio.sleep(max(0.0, started + BEAT_S - time.monotonic()))

    def _has_news(self, watcher: Watcher) -> bool:
        texts, seen = self._texts, watcher.seen
        return any(name in texts and seen.get(name) != texts[name][0] for name in watcher.names)

    def _look(self, watchers: list[Watcher]) -> None:
        jobs = list(dict.fromkeys(job_id for watcher in watchers for job_id in watcher.jobs))
        texts = self._jobs(jobs)
        for batch in {watcher.batch for watcher in watchers if watcher.batch}:
            data = batch_data(self._context, batch, self._counted.setdefault(batch, {}))
            texts[f"batch {batch}"] = (_text(data), data["owner"])
        if any(watcher.has_queues for watcher in watchers):
            texts[QUEUES] = (_text(queues_data(self._context)), "")
        self._texts = texts

    def _jobs(self, ids: list[str]) -> dict[str, tuple[str, str]]:
        """Return the texts and owners of jobs. Only the hashes that have changed are read."""
        client = self._context.client
        rows = dict(zip(ids, read_fields(client, ids, _MARKS), strict=True))
        changed = [job_id for job_id in ids if job_id not in self._known or self._known[job_id].marks != rows[job_id]]
        hashes = read_hashes(client, changed)
        for job_id in changed:
            self._known[job_id] = _Known(rows[job_id], hashes.get(job_id, {}))
        living = {job_id: self._known[job_id].fields for job_id in ids if self._known[job_id].fields}
        places = places_of(client, living, self._context.settings.job_timeout)
        kind_of = kept(self._context, "kind_names", lambda: kind_names(self._context))
        texts = {}
        for job_id, fields in living.items():
            known, place = self._known[job_id], places.get(job_id, {})
            if known.place != place:
                known.text = _text(job_data(job_id, fields, kind_of(queue_of_job(job_id)), **place))
                known.place = place
            texts[job_id] = (known.text, fields.get("owner", ""))
        return texts


def look_of(context: WebContext) -> Look:
    """Return the look of a server, which is made at the first call."""
    found = context.cache.get("look")
    if not isinstance(found, Look):
        found = context.cache["look"] = Look(context)
    return found


def _text(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def lines(kind: str, text: str) -> str:
    """Return an event of Server-Sent Events."""
    return f"event: {kind}\ndata: {text}\n\n"


def watched(ids: Iterable[str]) -> tuple[str, ...]:
    """Return ids, each once."""
    return tuple(dict.fromkeys(filter(None, ids)))
