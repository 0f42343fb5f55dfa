"""Bars of progress show the running jobs."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from redis_consumer.cli.images.progress import _Bars
from redis_consumer.client.submit import Submission
from redis_consumer.client.watch import JobState


def bars_of(count: int, height: int) -> str:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, height=height)
    submissions = [Submission(f"predict:{index}:0", Path(f"{index}[b].tif")) for index in range(count)]
    with _Bars(screen, submissions) as bars:
        bars.show(JobState("predict:0:0", "predicting", 30))
        bars.show(JobState("predict:1:0", "failed", 100))
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_each_job_has_a_bar() -> None:
    shown = bars_of(3, height=30)
    assert all(f"{index}[b].tif" in shown for index in range(3))
    assert "predicting" in shown


def test_many_jobs_share_a_bar_and_show_what_runs_or_failed() -> None:
    shown = bars_of(50, height=20)
    assert "50 jobs" in shown
    assert "0[b].tif" in shown
    assert "1[b].tif" in shown
    assert "40[b].tif" not in shown
