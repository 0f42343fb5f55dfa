"""Counts outlive the process that counted them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redis_consumer import metrics
from redis_consumer.metrics import Counter, Gauge, Histogram, recording
from support.scraping import value

SEEN = Counter("cells_seen_total", "Cells", ("kind",))
TOOK = Histogram("cells_seconds", "Time", ("kind",), buckets=(0.1, 1.0))
VERSION = Gauge("cells_info", "Version", ("version",))


@pytest.fixture(autouse=True)
def _stopped() -> Iterator[None]:
    yield
    metrics.stop()


def in_a_fork(folder: Path, writer: str, count: Callable[[], object]) -> None:
    """Count in a process that is killed."""
    pid = os.fork()
    if pid == 0:
        metrics.start(folder, writer)
        count()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def told(folder: Path) -> str:
    return metrics.text(folder).decode()


def test_nothing_is_counted_before_the_start(tmp_path: Path) -> None:
    SEEN.add("mitotic")
    metrics.start(tmp_path, "slot-0")
    assert value(told(tmp_path), "cells_seen_total", kind="mitotic") is None


def test_counts_are_told(tmp_path: Path) -> None:
    metrics.start(tmp_path, "slot-0")
    SEEN.add("mitotic")
    SEEN.add("mitotic", amount=2)
    TOOK.observe("mitotic", seconds=0.5)
    VERSION.set("1.0", to=1)
    text = told(tmp_path)
    assert value(text, "cells_seen_total", kind="mitotic") == 3
    assert value(text, "cells_seconds_bucket", kind="mitotic", le="0.1") == 0
    assert value(text, "cells_seconds_bucket", kind="mitotic", le="1.0") == 1
    assert value(text, "cells_info", version="1.0") == 1


def test_counts_of_a_killed_process_are_told_with_those_of_the_living(tmp_path: Path) -> None:
    metrics.start(tmp_path, "supervisor")
    SEEN.add("mitotic")
    in_a_fork(tmp_path, "slot-0", lambda: SEEN.add("mitotic"))
    assert value(told(tmp_path), "cells_seen_total", kind="mitotic") == 2


def test_a_process_goes_on_from_the_counts_of_the_one_before(tmp_path: Path) -> None:
    for _ in range(2):
        in_a_fork(tmp_path, "slot-0", lambda: SEEN.add("mitotic"))
    assert value(told(tmp_path), "cells_seen_total", kind="mitotic") == 2
    assert len(list(tmp_path.glob("counter_*"))) == 1


def test_a_process_that_somebody_forks_leaves_the_counts_alone(tmp_path: Path) -> None:
    import prometheus_client

    metrics.start(tmp_path, "slot-0")
    spots = prometheus_client.Counter("spots_found", "Spots", registry=None)
    SEEN.add("mitotic")
    pid = os.fork()
    if pid == 0:
        SEEN.add("mitotic")
        SEEN.add("apoptotic")
        spots.inc(5)
        os._exit(0)
    os.waitpid(pid, 0)
    spots.inc()
    SEEN.add("a longer name than that of the other process")
    text = told(tmp_path)
    assert value(text, "cells_seen_total", kind="mitotic") == 1
    assert value(text, "cells_seen_total", kind="a longer name than that of the other process") == 1
    assert value(text, "spots_found_total") == 6


def test_threads_that_count_the_same_for_the_first_time_lose_nothing(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    class Slow(Counter):
        def _make(self) -> object:
            made = super()._make()
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.2)
            return made

    metrics.start(tmp_path, "slot-0")
    slow = Slow("cells_slow_total", "Cells")
    threads = [threading.Thread(target=slow.add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(told(tmp_path), "cells_slow_total") == 2


def test_names_without_end_are_told_as_one(tmp_path: Path) -> None:
    metrics.start(tmp_path, "slot-0")
    for number in range(recording.MAX_CHILDREN + 5):
        SEEN.add(f"kind {number}")
    SEEN.add("kind 0")
    text = told(tmp_path)
    assert value(text, "cells_seen_total", kind="kind 0") == 2
    assert value(text, "cells_seen_total", kind="other") == 5


def test_a_name_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    metrics.start(tmp_path, "slot-0")
    SEEN.add(os.fsdecode(b"caf\xe9"))
    assert value(told(tmp_path), "cells_seen_total", kind="caf?") == 1


def test_where_the_files_cannot_be_made_nothing_is_counted_and_nobody_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics.start(tmp_path / "gone", "slot-0")
    SEEN.add("mitotic")
    assert "Counting no metrics" in caplog.text


def test_the_room_for_counts_is_taken_at_once(tmp_path: Path) -> None:
    metrics.start(tmp_path, "slot-0")
    (file,) = tmp_path.glob("counter_*")
    assert file.stat().st_blocks * 512 >= file.stat().st_size > 0


def test_stopped_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    from prometheus_client import values

    before = values.ValueClass
    metrics.start(tmp_path, "slot-0")
    SEEN.add("mitotic")
    metrics.stop()
    SEEN.add("mitotic")
    assert (values.ValueClass, os.environ.get("PROMETHEUS_MULTIPROC_DIR")) == (before, None)
    assert value(told(tmp_path), "cells_seen_total", kind="mitotic") == 1


def test_stopped_gives_back_a_folder_that_the_user_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/users/own")
    metrics.start(tmp_path, "slot-0")
    metrics.stop()
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == "/users/own"


def test_metrics_of_a_plug_in_are_told_too(tmp_path: Path) -> None:
    import prometheus_client

    metrics.start(tmp_path, "slot-0")
    prometheus_client.Counter("spots_found", "Spots", registry=None).inc(5)
    assert value(told(tmp_path), "spots_found_total") == 5


def test_the_library_is_not_loaded_before_the_start() -> None:
    loops = "redis_consumer.worker.slot_loop, redis_consumer.worker.supervisor"
    code = f"import {loops}, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
