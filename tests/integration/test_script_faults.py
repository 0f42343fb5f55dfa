"""Every script of the queue where a key is of the wrong kind, a number is none, or memory is full: no job gets lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from redis_consumer.errors import ConsumerError, RedisUnavailable
from redis_consumer.queue import scripts
from redis_consumer.redis import RedisClient
from support.redis_server import RedisServer
from support.scenes import CHANGES, Scene, contents, places

#: What strangers may write over a key.
WRONG: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda db, key: db.set(key, "text"),
    "list": lambda db, key: db.rpush(key, "text"),
    "hash": lambda db, key: db.hset(key, "text", "text"),
}

#: Those of our hashes and strings that hold numbers.
NUMBERS = (
    "attempts",
    "forgiven",
    "given-back",
    "completed",
    "recovered",
    "totals",
    "rates",
    "orphans",
    "holders",
    "family",
)


@pytest.fixture
def scene(redis_db: Any, redis_client: RedisClient) -> Scene:
    return Scene.build(redis_db, redis_client)


@pytest.fixture
def restored(redis_server: RedisServer, scene: Scene) -> Callable[[], None]:
    """Makes Redis as it was at first."""
    raw = redis.Redis("127.0.0.1", redis_server.port)
    kept = {key: raw.dump(key) for key in contents(scene.db)}

    def restored() -> None:
        raw.flushall()
        with raw.pipeline(transaction=False) as pipe:
            for key, value in kept.items():
                pipe.restore(key, 0, value or b"")
            pipe.execute()

    return restored


def ask(scene: Scene, change: str) -> str:
    """Ask for a change; say how it was refused, if it was."""
    try:
        CHANGES[change][0](scene)
    except ConsumerError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_all_scripts_are_tried(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    digest_of = scripts.digest_of

    def noted(script: str) -> str:
        asked.add(script)
        return digest_of(script)

    monkeypatch.setattr(scripts, "digest_of", noted)
    for change in CHANGES:
        ask(scene, change)
    files = (Path(scripts.__file__).parent / "lua").glob("*.lua")
    assert asked == {file.stem for file in files} - {"common", "job_tree"}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("change", CHANGES)
def test_a_key_of_the_wrong_kind_loses_no_job(
    scene: Scene, restored: Callable[[], None], redis_db: Any, change: str, kind: str
) -> None:
    job_id = CHANGES[change][1](scene)
    keys = [key for key in contents(redis_db) if redis_db.type(key) != kind]
    for key in keys:
        restored()
        redis_db.delete(key)
        WRONG[kind](redis_db, key)
        before = contents(redis_db)
        refused = ask(scene, change)
        after = contents(redis_db)
        had_place = set(places(before, job_id)) - {key}
        # A parent that waits is in no list; and a claim has taken the key before it looks at the job.
        assert not had_place or job_id == key or set(places(after, job_id)), (key, refused)
        if refused.startswith("SettingsError") and change != "claim":
            left = [name for name in before if name != key and before[name] != after.get(name)]
            assert left == [], (key, refused)


@pytest.mark.parametrize("text", ["", "text", "nan", "99999999999999999999"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_number_that_is_none_stops_nothing(
    scene: Scene, restored: Callable[[], None], redis_db: Any, change: str, text: str
) -> None:
    job_id = CHANGES[change][1](scene)
    keys = [key for key in contents(redis_db) if key.startswith(tuple(f"redis-consumer:{kind}:" for kind in NUMBERS))]
    for key in keys:
        restored()
        had_place = set(places(contents(redis_db), job_id))
        if redis_db.type(key) == "string":
            redis_db.set(key, text)
        else:
            redis_db.hset(key, mapping=dict.fromkeys(redis_db.hkeys(key), text))
        refused = ask(scene, change)
        assert not refused or ":holders:" in key, key
        assert set(places(contents(redis_db), job_id)) or not had_place, key


@pytest.fixture
def full(redis_server: RedisServer, redis_db: Any, scene: Scene) -> Iterator[None]:
    """Memory in which nothing more has room."""
    scene.zips.redis = scene.images.redis = RedisClient("127.0.0.1", redis_server.port, 0.01, deadline_s=0.1)
    redis_db.config_set("maxmemory", 1)
    yield
    redis_db.config_set("maxmemory", 0)
    scene.images.redis.close()


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("change", CHANGES)
def test_full_memory_refuses_a_change_as_a_whole_or_not_at_all(scene: Scene, redis_db: Any, change: str) -> None:
    before = contents(redis_db)
    try:
        CHANGES[change][0](scene)
    except RedisUnavailable:
        assert contents(redis_db) == before


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("change", ["complete", "fail", "give back", "cancel", "fan out"])
def test_a_claim_can_end_though_memory_is_full(scene: Scene, change: str) -> None:
    CHANGES[change][0](scene)
