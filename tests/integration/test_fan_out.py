"""Consumers that divide their jobs, as authors write them, on a real Redis and a real bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.consumers import Child, Consumer, claimed_job, second_phase
from redis_consumer.consumers.claimed_job import Interrupted, Outcome
from redis_consumer.consumers.fan_out import inherited, reason_of_child
from redis_consumer.errors import InvalidImage, StorageUnavailable
from redis_consumer.job import Job
from redis_consumer.queue import admin
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from redis_consumer.wanted import AT_ONCE
from support.queues import claimed

PARENT = "movies:a.txt:1"


class Words(Consumer):
    """Makes a child for each word of its input, and joins what they give."""

    error: BaseException | None = None

    def _consume(self, redis_hash: str) -> str:
        job = self.job
        assert job is not None
        return self.fan_out(self._children(job), then="join", fields={"language": "en"})

    def _children(self, job: Job) -> Iterator[Child]:
        folder = Path(self.storage.download(job.input_file_name, self.output_dir)).parent
        for word in (folder / "a.txt").read_text().split():
            path = folder / f"{word}.word"
            path.write_text(word)
            yield Child("words", f"of a/{word}.word", path, inherited(job))
        if self.error is not None:
            raise self.error

    @second_phase
    def join(self, redis_hash: str) -> str:
        if self.error is not None:
            raise self.error
        children = list(self.child_jobs())
        text = " ".join(child.get("shouted") or f"({reason_of_child(child)})" for child in children)
        self.update_key(redis_hash, {"status": self.final_status, "text": text})
        return self.final_status

    def not_a_phase(self, redis_hash: str) -> str:
        raise AssertionError(redis_hash)


class Shout(Consumer):
    """Gives its word in capitals."""

    def _consume(self, redis_hash: str) -> str:
        assert self.job is not None
        word = Path(self.storage.download(self.job.input_file_name, self.output_dir)).read_text()
        if word == "bad":
            raise InvalidImage("bad.word: is bad; mend it")
        self.update_key(redis_hash, {"status": self.final_status, "shouted": word.upper()})
        return self.final_status


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    (tmp_path / "bucket").mkdir()
    return Storage((tmp_path / "bucket").as_uri())


@pytest.fixture
def make(redis_client: RedisClient, storage: Storage, tmp_path: Path) -> Callable[..., Any]:
    """Makes a consumer."""

    def make(kind: type[Consumer], queue: str, **attributes: Any) -> Consumer:
        consumer = kind(redis_client, storage, queue, name="pod-1")
        consumer.output_dir = str(tmp_path / "work")
        for name, value in attributes.items():
            setattr(consumer, name, value)
        return consumer

    return make


@pytest.fixture
def submit(redis_db: Any, storage: Storage) -> Callable[..., str]:
    def submit(text: str, **fields: str) -> str:
        storage.write_bytes("uploads/a.txt", text.encode())
        redis_db.hset(PARENT, mapping={"status": "new", "input_file_name": "uploads/a.txt", **fields})
        redis_db.lpush("movies", PARENT)
        return PARENT

    return submit


Make = Callable[..., Any]
Submit = Callable[..., str]


def run(consumer: Consumer) -> Outcome:
    return consumer.run(claimed(consumer.job_queue))


def run_all(consumer: Consumer) -> None:
    while (job := consumer.job_queue.claim()) is not None:
        consumer.run(job)


def test_a_job_goes_through_both_phases(make: Make, submit: Submit, redis_db: Any) -> None:
    submit("hello big world", model_name="m")
    assert run(make(Words, "movies")) is Outcome.SETTLED
    assert redis_db.hmget(PARENT, "status", "language", "progress") == ["waiting", "en", "0"]
    run_all(make(Shout, "words"))
    run(make(Words, "movies"))
    assert redis_db.hmget(PARENT, "status", "text") == ["done", "HELLO BIG WORLD"]


def test_children_have_what_a_producer_would_write(make: Make, submit: Submit, redis_db: Any) -> None:
    submit("hello", model_name="m", created_at="long ago", progress="7", label="1")
    run(make(Words, "movies"))
    key = redis_db.lindex("words", 0)
    fields = redis_db.hgetall(key)
    assert key.startswith("words:of_a/hello.word:")
    assert (fields["status"], fields["original_name"], fields["model_name"]) == ("new", "of a/hello.word", "m")
    assert fields["input_file_name"].startswith("output/")
    assert fields["input_file_name"].endswith("/0/hello.word")
    assert fields["url"].endswith(fields["input_file_name"])
    assert (fields["identity_upload"], fields["label"], fields["parent"]) == ("pod-1", "1", PARENT)
    assert fields["created_at"].endswith("+00:00")
    assert "progress" not in fields
    assert redis_db.ttl(key) > 0


def test_inputs_do_not_stay_on_disk(make: Make, submit: Submit, tmp_path: Path) -> None:
    submit(" ".join(f"w{number}" for number in range(300)))
    run(make(Words, "movies"))
    assert list((tmp_path / "work").glob("*.word")) == []


def test_a_failed_child_is_told_and_the_others_count(make: Make, submit: Submit, redis_db: Any) -> None:
    submit("hello bad world")
    run(make(Words, "movies"))
    run_all(make(Shout, "words"))
    run(make(Words, "movies"))
    assert redis_db.hget(PARENT, "text") == "HELLO (InvalidImage: bad.word: is bad; mend it) WORLD"


def test_an_error_in_the_middle_pushes_nothing(make: Make, submit: Submit, redis_db: Any) -> None:
    submit(" ".join(f"w{number}" for number in range(250)))
    run(make(Words, "movies", error=InvalidImage("a.txt: is cut off; upload it again")))
    assert redis_db.hget(PARENT, "status") == "failed"
    assert redis_db.keys("words*") == []


def test_an_outage_in_the_middle_gives_the_job_back_and_makes_the_same_children(
    make: Make, submit: Submit, redis_db: Any
) -> None:
    submit(" ".join(f"w{number}" for number in range(250)))
    assert run(make(Words, "movies", error=StorageUnavailable("bucket: away"))) is Outcome.GIVEN_BACK
    before = set(redis_db.keys("words:*"))
    run(make(Words, "movies"))
    after = redis_db.lrange("words", 0, -1)
    assert len(after) == len(set(after)) == 250
    assert before <= set(after)
    assert len(redis_db.keys("words:*")) == 250


def test_a_job_that_is_cancelled_while_it_makes_children_stops_there(
    make: Make, submit: Submit, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Watched(Words):
        def _children(self, job: Job) -> Iterator[Child]:
            for child in super()._children(job):
                made.append(child)
                admin.cancel(self.job_queue, job.id)
                yield child

    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    submit(" ".join(f"w{number}" for number in range(90)))
    run(make(Watched, "movies"))
    assert redis_db.hget(PARENT, "reason").startswith("JobCancelled: ")
    assert len(made) <= 2 * AT_ONCE
    assert redis_db.keys("words*") == []


@pytest.mark.parametrize("error", [StorageUnavailable("away"), Interrupted()])
def test_a_second_phase_that_ends_early_runs_again_by_itself(
    make: Make, submit: Submit, redis_db: Any, error: BaseException
) -> None:
    submit("hello world")
    run(make(Words, "movies"))
    run_all(make(Shout, "words"))
    with contextlib.suppress(Interrupted):
        run(make(Words, "movies", error=error))
    assert redis_db.hget(PARENT, "next_phase") == "join"
    run(make(Words, "movies"))
    assert redis_db.hget(PARENT, "text") == "HELLO WORLD"
    assert redis_db.llen("words") == 0


def test_a_second_phase_whose_worker_died_runs_again(make: Make, submit: Submit, redis_db: Any) -> None:
    submit("hello world")
    words = make(Words, "movies")
    run(words)
    run_all(make(Shout, "words"))
    words.job_queue.give_back(claimed(words.job_queue), is_crash=True)
    run(words)
    assert redis_db.hmget(PARENT, "status", "text") == ["done", "HELLO WORLD"]


def test_only_a_marked_method_can_be_named(make: Make, submit: Submit, redis_db: Any) -> None:
    for name in ("not_a_phase", "close", "__init__", "no such"):
        submit("hello", next_phase=name)
        run(make(Words, "movies"))
        assert redis_db.hget(PARENT, "reason").startswith(f"InvalidJob: field next_phase: {name!r} is no second phase")


@pytest.mark.parametrize("then", ["joni", "close", ""])
def test_a_consumer_that_names_no_phase_of_its_own_is_told(
    make: Make, submit: Submit, redis_db: Any, then: str
) -> None:
    class Wrong(Words):
        def _consume(self, redis_hash: str) -> str:
            return self.fan_out([], then=then)

    submit("hello")
    run(make(Wrong, "movies"))
    told = f"ValueError: fan_out: then={then!r} is no method marked by @second_phase; Wrong has: join"
    assert told in redis_db.hget(PARENT, "reason")


def test_only_a_running_job_can_be_divided(make: Make) -> None:
    with pytest.raises(ValueError, match="runs no job"):
        make(Words, "movies").fan_out([], then="join")


def test_a_child_may_have_an_object_as_its_input(make: Make, submit: Submit, redis_db: Any) -> None:
    class Same(Words):
        def _children(self, job: Job) -> Iterator[Child]:
            yield Child("words", "a.word", fields={"input_file_name": job.input_file_name})

    submit("hello")
    run(make(Same, "movies"))
    assert redis_db.hget(redis_db.lindex("words", 0), "input_file_name") == "uploads/a.txt"


def test_a_second_phase_may_divide_again(make: Make, submit: Submit, redis_db: Any) -> None:
    class Twice(Words):
        @second_phase
        def join(self, redis_hash: str) -> str:
            fields = [child.fields for child in self.child_jobs()]
            again = (Child("words", "b.word", fields={"input_file_name": each["input_file_name"]}) for each in fields)
            return self.fan_out(again, then="last")

        @second_phase
        def last(self, redis_hash: str) -> str:
            return super().join(redis_hash)

    submit("hello world")
    for _ in range(2):
        run(make(Twice, "movies"))
        run_all(make(Shout, "words"))
    run(make(Twice, "movies"))
    assert redis_db.hmget(PARENT, "status", "text") == ["done", "HELLO WORLD"]
    assert len(redis_db.keys("words:*")) == 4


def test_a_script_of_ones_own_can_loop_over_both_phases(make: Make, submit: Submit, redis_db: Any) -> None:
    submit("hello")
    words, shout = make(Words, "movies"), make(Shout, "words")
    for consumer in (words, shout, words):
        consumer.consume()
    assert redis_db.hget(PARENT, "text") == "HELLO"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "done"}, ""),
        ({"status": "failed", "reason": "Traceback\n  x\nKeyError: 'y'\n"}, "KeyError: 'y'"),
        ({"status": "failed"}, "its worker gave no reason"),
        ({}, "its job expired, or was deleted, before it had ended; submit the image again"),
    ],
)
def test_reasons_of_children(fields: dict[str, str], reason: str) -> None:
    assert reason_of_child(Job("words:x:1", fields)) == reason
