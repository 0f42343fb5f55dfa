"""Server-Sent Events: one look for all watchers, first the state, then changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from redis_consumer.queue import JobQueue
from redis_consumer.web.access import User
from redis_consumer.web.v1 import events, look
from redis_consumer.web.v1.look import Look, Watcher
from support.queues import claimed
from support.redis_server import RedisServer
from support.web import Api, make_context


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "BEAT_S", 0.01)


def watcher(*jobs: str, user: User = User("", "operator"), **kwargs: Any) -> Watcher:  # noqa: B008
    return Watcher(Request({"type": "http", "headers": []}), user, jobs, **kwargs)


@asynccontextmanager
async def watching(api: Api, who: Watcher) -> AsyncIterator[Callable[[], Coroutine[Any, Any, Any]]]:
    """Yield a function that waits for the next event."""
    stream = events._stream(look.look_of(api.context), who)
    waiting: list[Any] = []

    async def following() -> Any:
        while not waiting:
            text = await asyncio.wait_for(anext(stream), 30)
            for part in filter(None, text.split("\n\n")):
                kind, _, data = part.partition("\ndata: ")
                waiting.append((kind.removeprefix("event: "), json.loads(data) if data else None))
        return waiting.pop(0)

    try:
        yield following
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


def test_first_the_state_then_changes_only(api: Api) -> None:
    first, second = api.submit()["id"], api.submit()["id"]

    async def scene() -> None:
        async with watching(api, watcher(first, second)) as following:
            assert await following() == ("retry: 2000", None)
            both = [await following(), await following()]
            assert [(kind, job["id"], job["queue"]["place"]) for kind, job in both] == [
                ("job", first, 1), ("job", second, 2),
            ]  # fmt: skip
            queue = JobQueue(api.context.client, "predict", "pod-1")
            job = await asyncio.to_thread(claimed, queue)
            states = {first: ("new", 0), second: ("new", 2)}
            # A look in the middle of the claim sees a part of it.
            while states != {first: ("running", 0), second: ("new", 1)}:
                _, found = await following()
                states[found["id"]] = found["status"], (found["queue"] or {"place": 0})["place"]
            await asyncio.to_thread(queue.complete, job, {"status": "done", "objects": 4}, is_success=True)
            while found["status"] != "done":
                _, found = await following()
            assert (found["id"], found["objects"]) == (first, 4)

    asyncio.run(scene())


def test_a_batch_and_the_queues(api: Api) -> None:
    batch = api.ask("POST", "/batches", 201, json={"name": "x", "uploads": [api.upload()]})["id"]

    async def scene() -> None:
        async with watching(api, watcher(batch=batch, has_queues=True)) as following:
            await following()
            found = dict([await following(), await following()])
            assert found["batch"]["counts"]["waiting"] == 1
            assert found["queues"][0]["cause"] == "no_worker"

    asyncio.run(scene())


def test_a_job_of_another_owner_is_not_sent(api: Api) -> None:
    hers, his = api.submit(user="ann")["id"], api.submit(user="bob")["id"]

    async def scene() -> None:
        async with watching(api, watcher(hers, his, user=User("bob", "user"))) as following:
            await following()
            assert (await following())[1]["id"] == his

    asyncio.run(scene())


def test_a_thousand_watchers_share_one_look(api: Api) -> None:
    job_id = api.submit()["id"]

    async def scene() -> None:
        shared = Look(api.context)
        looks: list[int] = []
        once = shared._look
        shared._look = lambda watchers: (looks.append(len(watchers)), once(watchers))[1]  # type: ignore[method-assign,func-returns-value]
        streams = [events._stream(shared, watcher(job_id)) for _ in range(1000)]
        for stream in streams:
            await anext(stream)
        texts = await asyncio.gather(*(asyncio.wait_for(anext(stream), 60) for stream in streams))
        assert all(job_id in text for text in texts)
        assert max(looks) == 1000
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        number = len(looks)
        await asyncio.sleep(0.05)
        assert len(looks) == number  # nobody watches

    asyncio.run(scene())


def test_more_watchers_than_the_limit_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "MOST_WATCHERS", 0)
    assert "each 3 s" in api.ask("GET", "/events?queues=1", 503)["hint"]


def test_a_revoked_user_is_sent_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = api.submit()["id"]

    async def scene() -> None:
        async with watching(api, watcher(job_id)) as following:
            await following()
            await following()
            monkeypatch.setattr(look, "is_still", lambda _: False)
            with pytest.raises(StopAsyncIteration):
                await following()

    asyncio.run(scene())


def test_redis_goes_and_comes_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    try:
        api = Api(make_context(server.port, tmp_path))
        job_id = api.submit()["id"]

        async def scene() -> None:
            async with watching(api, watcher(job_id)) as following:
                await following()
                await following()
                await asyncio.to_thread(server.stop)
                kind, found = await following()
                assert (kind, found["status"]) == ("problem", 503)
                await asyncio.to_thread(server.start)
                await asyncio.to_thread(server.client.hset, job_id, mapping={"status": "done", "updated_at": "x"})
                kind, job = await following()
                assert (kind, job["status"]) == ("job", "done")

        asyncio.run(scene())
    finally:
        server.stop()
