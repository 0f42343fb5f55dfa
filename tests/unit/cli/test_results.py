"""Does each result get a name of its own?"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from redis_consumer.cli.producer import Submission
from redis_consumer.cli.results import Result, _Bars, result_names
from redis_consumer.cli.watch import JobState


def test_result_is_named_after_its_file() -> None:
    sent = Submission("predict:cells.tif:0", Path("a/cells.tif"))
    assert result_names([sent]) == {"predict:cells.tif:0": "cells-result.zip"}


def test_files_of_one_name_are_told_apart_by_their_jobs() -> None:
    first = Submission("predict:cells.tif:00000000-0000-4000-8000-00000000000a", Path("a/cells.tif"))
    second = Submission("predict:cells.png:00000000-0000-4000-8000-00000000000b", Path("b/cells.png"))
    names = result_names([first, second])
    assert names[first.job_id] == "cells-00000000000a-result.zip"
    assert names[second.job_id] == "cells-00000000000b-result.zip"


def test_data_for_scripts() -> None:
    state = JobState("predict:a:1", "failed", 100, reason="Traceback\nInvalidImage: a.tif: empty")
    data = Result(Submission("predict:a:1", Path("a.tif")), state).as_data()
    assert (data["status"], data["reason"], data["result"]) == ("failed", "InvalidImage: a.tif: empty", None)


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
