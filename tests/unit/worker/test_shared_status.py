"""The supervisor reads what its slots report, also if they die meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from redis_consumer.job import Job
from redis_consumer.worker.shared_status import MAX_KEY_BYTES, SharedStatus


@pytest.fixture
def status() -> Iterator[SharedStatus]:
    status = SharedStatus(2)
    yield status
    status.close()


def told(status: SharedStatus) -> dict[int, tuple[str, int]]:
    return {thread: (run.job.id, run.job.attempt) for thread, run in status.runs().items()}


def test_nothing_is_told_at_first(status: SharedStatus) -> None:
    assert (status.runs(), status.is_ready, status.has_run(), status.consumer) == ({}, False, False, "")


def test_each_thread_tells_its_job(status: SharedStatus) -> None:
    status.set_ready("Slow")
    status.note(1, Job("predict:a.tif:1", attempt=3))
    status.note(0, Job("predict:b.tif:2"))
    status.note(0, None)
    assert told(status) == {1: ("predict:a.tif:1", 3)}
    assert (status.is_ready, status.has_run(), status.consumer) == (True, True, "Slow")


def test_the_same_job_again_is_progress(status: SharedStatus) -> None:
    job = Job("predict:a.tif:1")
    status.note(0, job)
    first = status.runs()[0]
    status.note(0, job)
    second = status.runs()[0]
    assert second.started == first.started
    assert second.progressed >= first.progressed
    status.note(0, Job(job.id, attempt=2))
    assert status.runs()[0].started >= second.progressed


def test_names_that_are_not_utf8_go_through(status: SharedStatus) -> None:
    name = b"predict:\xff.tif:1".decode("utf-8", "surrogateescape")
    status.note(0, Job(name))
    assert told(status) == {0: (name, 1)}


def test_a_name_of_a_class_that_is_too_long_is_cut(status: SharedStatus) -> None:
    status.set_ready(200 * "ä")
    status.note(0, Job("predict:a.tif:1"))
    assert (status.consumer, told(status)) == (127 * "ä", {0: ("predict:a.tif:1", 1)})


def test_a_key_that_is_too_long_is_cut(status: SharedStatus) -> None:
    status.note(1, Job("x" * (MAX_KEY_BYTES + 1)))
    assert len(status.runs()[1].job.id) == MAX_KEY_BYTES


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_killed_leaves_what_it_told(status: SharedStatus) -> None:
    pid = os.fork()
    if pid == 0:
        status.note(0, Job("predict:a.tif:1"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert told(status) == {0: ("predict:a.tif:1", 1)}


def test_no_half_written_record_is_read(status: SharedStatus) -> None:
    ended = threading.Event()
    jobs = [Job(letter * 20_000, attempt=number) for number, letter in enumerate("ab", start=1)]

    def write() -> None:
        while not ended.is_set():
            for job in jobs:
                status.note(0, job)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {told(status).get(0) for _ in range(2000)}
    ended.set()
    writer.join()
    assert seen <= {None, *((job.id, job.attempt) for job in jobs)}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_was_told_is_told_at_each_moment(status: SharedStatus) -> None:
    status.note(0, Job("predict:a.tif:1"))
    pid = os.fork()
    if pid == 0:
        while True:
            status.note(0, Job("predict:a.tif:1"))
    try:
        assert all(status.has_run() for _ in range(300_000))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
