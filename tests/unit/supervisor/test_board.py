"""Does the supervisor read what its slots tell, also when they die over it?"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from redis_consumer.job import Job
from redis_consumer.supervisor.board import MAX_KEY_BYTES, Board


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(2)
    yield board
    board.close()


def told(board: Board) -> dict[int, tuple[str, int]]:
    return {thread: (run.job.id, run.job.attempt) for thread, run in board.runs().items()}


def test_nothing_is_told_at_first(board: Board) -> None:
    assert (board.runs(), board.is_ready, board.has_run(), board.consumer) == ({}, False, False, "")


def test_each_thread_tells_its_job(board: Board) -> None:
    board.set_ready("Slow")
    board.note(1, Job("predict:a.tif:1", attempt=3))
    board.note(0, Job("predict:b.tif:2"))
    board.note(0, None)
    assert told(board) == {1: ("predict:a.tif:1", 3)}
    assert (board.is_ready, board.has_run(), board.consumer) == (True, True, "Slow")


def test_the_same_job_again_is_progress(board: Board) -> None:
    job = Job("predict:a.tif:1")
    board.note(0, job)
    first = board.runs()[0]
    board.note(0, job)
    second = board.runs()[0]
    assert second.started == first.started
    assert second.progressed >= first.progressed
    board.note(0, Job(job.id, attempt=2))
    assert board.runs()[0].started >= second.progressed


def test_names_that_are_not_utf8_go_through(board: Board) -> None:
    name = b"predict:\xff.tif:1".decode("utf-8", "surrogateescape")
    board.note(0, Job(name))
    assert told(board) == {0: (name, 1)}


def test_a_name_of_a_class_that_is_too_long_is_cut(board: Board) -> None:
    board.set_ready(200 * "ä")
    board.note(0, Job("predict:a.tif:1"))
    assert (board.consumer, told(board)) == (127 * "ä", {0: ("predict:a.tif:1", 1)})


def test_a_key_that_is_too_long_is_cut(board: Board) -> None:
    board.note(1, Job("x" * (MAX_KEY_BYTES + 1)))
    assert len(board.runs()[1].job.id) == MAX_KEY_BYTES


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_killed_leaves_what_it_told(board: Board) -> None:
    pid = os.fork()
    if pid == 0:
        board.note(0, Job("predict:a.tif:1"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert told(board) == {0: ("predict:a.tif:1", 1)}


def test_no_half_written_record_is_read(board: Board) -> None:
    ended = threading.Event()
    jobs = [Job(letter * 20_000, attempt=number) for number, letter in enumerate("ab", start=1)]

    def write() -> None:
        while not ended.is_set():
            for job in jobs:
                board.note(0, job)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {told(board).get(0) for _ in range(2000)}
    ended.set()
    writer.join()
    assert seen <= {None, *((job.id, job.attempt) for job in jobs)}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_was_told_is_told_at_each_moment(board: Board) -> None:
    board.note(0, Job("predict:a.tif:1"))
    pid = os.fork()
    if pid == 0:
        while True:
            board.note(0, Job("predict:a.tif:1"))
    try:
        assert all(board.has_run() for _ in range(300_000))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
