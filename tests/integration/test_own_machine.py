"""A worker whose own disk or limits fail returns its jobs and takes no more, until its machine works again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from redis_consumer import __version__
from support.redis_server import RedisServer, free_port
from support.scraping import ask, scrape, value
from support.worker import JOB, is_idle, running_worker, status_is, submit, variables, wait_for

ROOTS = "redis-consumer-worker-*"


class Watched:
    """A worker with a folder for temporary files of its own, and its probes."""

    def __init__(self, server: RedisServer, db: Any, folder: Path, temporary: Path) -> None:
        self.db, self.folder, self.temporary = db, folder, temporary
        self.port = free_port()
        self.settings = {"TMPDIR": str(temporary), "HEALTH_ADDRESS": f"127.0.0.1:{self.port}"}
        self.server = server

    @contextmanager
    def run(self, kind: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run it until the block ends; it is ready at its start."""
        with running_worker(
            self.folder, variables(self.server, self.folder, kind, **self.settings, **settings)
        ) as process:
            self.await_ready(200)
            wait_for(lambda: is_idle(self.db), "an idle slot", self.folder)
            yield process

    def await_ready(self, status: int) -> dict[str, Any]:
        """Wait until ``/ready`` answers with this status; give what it tells."""
        wait_for(lambda: ask(self.port, "/ready")[0] == status, f"/ready with {status}", self.folder)
        return ask(self.port, "/ready")[1]

    def submit(self, count: int, **fields: str) -> list[str]:
        """Submit some jobs."""
        return [submit(self.db, f"predict:{number}.tif:1", **fields) for number in range(count)]

    def await_done(self, jobs: list[str]) -> None:
        """Wait until all of them are done; none may fail on the way."""
        for job in jobs:
            wait_for(partial(self.has_ended, job), f"the end of {job}", self.folder)
        assert {self.db.hget(job, "status") for job in jobs} == {"done"}
        assert self.db.lrange("redis-consumer:dead:predict", 0, -1) == []

    def has_ended(self, job: str) -> bool:
        """Whether a job is done or failed."""
        return self.db.hget(job, "status") in ("done", "failed")

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "worker.log").read_text()


@pytest.fixture
def watched(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Watched:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return Watched(redis_server, redis_db, tmp_path, temporary)


def remove_roots(temporary: Path) -> None:
    for root in temporary.glob(ROOTS):
        # At once, although slots can write there meanwhile.
        shutil.rmtree(root.rename(temporary / "removed"))


def slots_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


@pytest.mark.parametrize("kind", ["Filing", "Catching"])
def test_a_folder_that_was_removed_is_made_again_and_no_job_fails(watched: Watched, kind: str) -> None:
    with watched.run(kind):
        remove_roots(watched.temporary)
        jobs = watched.submit(50)
        watched.await_done(jobs)
        watched.await_ready(200)
        wait_for(lambda: "temporary files was removed" in watched.log, "the note", watched.folder)


@pytest.mark.parametrize("kind", ["Filing", "Catching"])
def test_a_job_whose_files_were_removed_runs_again_and_no_attempt_counts(watched: Watched, kind: str) -> None:
    with watched.run(kind, MAX_ATTEMPTS="1"):
        submit(watched.db, seconds="1")
        wait_for(status_is(watched.db, "started"), "the job's start", watched.folder)
        remove_roots(watched.temporary)
        watched.await_done([JOB])
    assert f"Gave back job {JOB}: MachineUnavailable" in watched.log


def test_a_slot_that_dies_after_the_removal_starts_again(watched: Watched) -> None:
    with watched.run("Filing") as process:
        remove_roots(watched.temporary)
        [slot] = slots_of(process)
        slot.kill()
        # Its blocking claim would still take a job if it was pushed at this moment; the sweep returns such a one.
        wait_for(lambda: slot not in slots_of(process) and is_idle(watched.db), "another slot", watched.folder)
        watched.await_done(watched.submit(3))


def test_a_folder_that_cannot_be_made_is_waited_for(watched: Watched) -> None:
    """The folder that TMPDIR names goes, as with an unmounted disk, and comes back."""
    away = watched.temporary.with_name("away")
    with watched.run("Filing", CONCURRENCY="2") as process:
        watched.temporary.rename(away)
        jobs = watched.submit(20)
        wait_for(lambda: "temporary files" in watched.await_ready(503)["waiting"], "the reason", watched.folder)
        assert ask(watched.port, "/live")[0] == 200
        wait_for(lambda: "Claiming nothing: temporary files" in watched.log, "the slots' pause", watched.folder)
        wait_for(lambda: "Taking no jobs" in watched.log, "the supervisor's look", watched.folder)
        assert process.poll() is None
        away.rename(watched.temporary)
        watched.await_done(jobs)
        watched.await_ready(200)
    assert watched.log.count("Taking no jobs") == 1


def test_a_healthy_worker_does_the_jobs_of_one_whose_disk_fails(watched: Watched) -> None:
    other = watched.folder / "other"
    other.mkdir()
    with watched.run("Filing"):
        healthy = variables(watched.server, watched.folder, "Filing", HOSTNAME="pod-2", TMPDIR=str(other))
        with running_worker(other, healthy):
            shutil.rmtree(watched.temporary)
            jobs = watched.submit(200)
            watched.await_ready(503)
            watched.await_done(jobs)
    assert watched.log.count("Gave back job") < 20


def limit_files(process: psutil.Process, spare: int | None) -> None:
    """Let a process open only some files more; None for as many as before."""
    hard = process.rlimit(resource.RLIMIT_NOFILE)[1]
    opened = {int(number) for number in os.listdir(f"/proc/{process.pid}/fd")}
    # The limit is one of numbers: what is free below it can be opened.
    free = (number for number in range(hard) if number not in opened)
    process.rlimit(resource.RLIMIT_NOFILE, (hard if spare is None else next(islice(free, spare, None)), hard))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")
def test_a_slot_that_can_open_no_file_fails_no_job(watched: Watched) -> None:
    with watched.run("Filing") as process:
        for each in slots_of(process):
            limit_files(each, 1)
        jobs = watched.submit(5)
        told = watched.await_ready(503)
        wait_for(lambda: "Claiming nothing" in watched.log, "the slot's pause", watched.folder)
        assert "waiting" in told
        for each in slots_of(process):
            limit_files(each, None)
        watched.await_done(jobs)
        watched.await_ready(200)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")
def test_a_supervisor_that_can_open_no_file_still_answers_probes(watched: Watched) -> None:
    with watched.run("Filing") as process:
        limit_files(psutil.Process(process.pid), 0)
        assert "Too many open files" in watched.await_ready(503)["waiting"]
        limit_files(psutil.Process(process.pid), None)
        watched.await_ready(200)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")
def test_a_library_that_hides_why_it_could_open_nothing_fails_no_job(watched: Watched) -> None:
    with watched.run("Hoarding") as process:
        for each in slots_of(process):
            limit_files(each, 100)
        submit(watched.db, files="200")
        wait_for(lambda: f"Gave back job {JOB}: MachineUnavailable" in watched.log, "the return", watched.folder)
        for each in slots_of(process):
            limit_files(each, None)
        watched.await_done([JOB])


def can_mount(folder: Path) -> bool:
    program = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=64", "none", str(folder)]
    return (
        shutil.which("mount") is not None and subprocess.run(program, capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def small_disk(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Iterator[Watched]:
    """A worker whose temporary files have a disk of their own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("needs the right to mount")
    subprocess.run(["mount", "-o", "remount,size=8m,nr_inodes=200", str(disk)], check=True)
    yield Watched(redis_server, redis_db, tmp_path, disk)
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def use_inodes(disk: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(1000):
            (disk / f"inode-{number}").touch()


def free(disk: Path) -> None:
    for path in (*disk.glob("inode-*"), *disk.glob("full")):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [(fill, free), (use_inodes, free)],
    ids=["full", "no inodes"],
)
def test_a_disk_that_takes_nothing_fails_no_job(
    small_disk: Watched, spoil: Callable[[Path], object], mend: Callable[[Path], object]
) -> None:
    with small_disk.run("Filing") as process:
        spoil(small_disk.temporary)
        jobs = small_disk.submit(5)
        small_disk.await_ready(503)
        wait_for(lambda: "Claiming nothing: temporary files" in small_disk.log, "the slot's pause", small_disk.folder)
        slots_of(process)[0].kill()
        wait_for(lambda: "Taking no jobs" in small_disk.log, "the note", small_disk.folder)
        mend(small_disk.temporary)
        small_disk.await_done(jobs)
        small_disk.await_ready(200)


def test_a_disk_that_becomes_read_only_fails_no_job(small_disk: Watched) -> None:
    """Without probes: the system doesn't let us do that to a disk on which metrics are open."""
    with running_worker(
        small_disk.folder, variables(small_disk.server, small_disk.folder, "Filing", TMPDIR=str(small_disk.temporary))
    ):
        wait_for(lambda: is_idle(small_disk.db), "an idle slot", small_disk.folder)
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk.temporary)], check=True)
        jobs = small_disk.submit(5)
        wait_for(lambda: "Read-only file system" in small_disk.log, "the note", small_disk.folder)
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk.temporary)], check=True)
        small_disk.await_done(jobs)


def test_metrics_go_on_where_their_folder_was_removed(watched: Watched) -> None:
    with watched.run("Filing"):
        watched.await_done(watched.submit(2))
        remove_roots(watched.temporary)
        watched.await_done(watched.submit(3))
        labels = {"queue": "predict", "consumer": "Filing"}

        def counted() -> bool:
            # A slot sees at its next job that its files are gone.
            watched.await_done([submit(watched.db, "predict:more.tif:1")])
            with contextlib.suppress(OSError):
                text = scrape(watched.port)
                done = value(text, "redis_consumer_jobs_total", status="done", **labels)
                return bool(done) and value(text, "redis_consumer_info", version=__version__, **labels) == 1
            return False

        wait_for(counted, "the counts", watched.folder)


def test_the_folder_is_locked_against_systemd_tmpfiles(watched: Watched) -> None:
    """systemd-tmpfiles removes no folder on which it gets no lock."""

    def is_created(times: int) -> bool:
        return watched.log.count("it is created again") == times

    with watched.run("Filing"):
        for removed in (1, 2):
            [root] = watched.temporary.glob(ROOTS)
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
            remove_roots(watched.temporary)
            wait_for(partial(is_created, removed), "the folder", watched.folder)


def test_a_slot_that_hangs_at_its_start_is_replaced(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Hanging", JOB_TIMEOUT="1")):
        submit(redis_db)
        wait_for(lambda: "wasn't ready within" in (tmp_path / "worker.log").read_text(), "the kill", tmp_path)
        redis_db.set("go-on", "1")
        wait_for(status_is(redis_db, "done"), "the job", tmp_path)


SUBREAPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def first_process() -> list[str]:
    """How a command is started as the first process of a namespace, or else as one that gets orphans, too."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0:
        return [*unshare, sys.executable]
    return [sys.executable, "-c", SUBREAPER]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to another process than the first one")
@pytest.mark.parametrize("start", [first_process(), [sys.executable, "-c", SUBREAPER]], ids=["first", "subreaper"])
def test_the_first_process_of_a_container_reaps_orphans(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, start: list[str]
) -> None:
    settings = variables(redis_server, tmp_path, "Parting")
    with (tmp_path / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [*start, "-m", "redis_consumer", "run"], cwd=tmp_path, env=settings, stdout=log, stderr=log
        )
    try:
        submit(redis_db)
        wait_for(status_is(redis_db, "done"), "the job", tmp_path)
        workers = [each for each in psutil.process_iter() if is_worker(each, process.pid)]
        supervisor = min(workers, key=lambda each: each.create_time())
        # Its slot, and no more: the orphan was given to it before the job was done.
        wait_for(lambda: len(supervisor.children()) == 1, "the reaping", tmp_path)
        submit(redis_db, "predict:b.tif:2")
        wait_for(status_is(redis_db, "done", "predict:b.tif:2"), "the next job", tmp_path)
        supervisor.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def is_worker(process: psutil.Process, root: int) -> bool:
    with contextlib.suppress(psutil.Error):
        family = {process.pid, *(each.pid for each in process.parents())}
        return root in family and process.cmdline()[:3] == [sys.executable, "-m", "redis_consumer"]
    return False
