"""Queues are drawn so that problems are easy to see."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from rich.console import Console

from redis_consumer.cli.queues.queues import table_of, watch_queues
from redis_consumer.client.queue_state import QueueView

VIEW = QueueView("predict", 3, 2, 1, 0, 0, 1e9, oldest_waiting_s=90, jobs_per_minute=7.25)


def interrupted_after(looks: int) -> Callable[[float], None]:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == looks:
            raise KeyboardInterrupt

    return sleep


def test_all_figures_are_in_the_table() -> None:
    screen = Console(file=io.StringIO(), width=100)
    with screen.capture() as capture:
        screen.print(table_of([VIEW]))
    assert capture.get().splitlines()[1].split() == ["predict", "3", "2", "1", "1.5", "min", "0", "7.2"]


def test_what_is_not_known_is_left_out() -> None:
    screen = Console(file=io.StringIO(), width=100)
    with screen.capture() as capture:
        screen.print(table_of([QueueView("predict", 0, 0, 0, 1, 0, 1e9)]))
    assert capture.get().splitlines()[1].split() == ["predict", "0", "0", "0", "1", "0.0"]


def test_terminal_is_redrawn_in_place_until_interrupted() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    watch_queues(lambda: [VIEW], screen, interval_s=1, sleep=interrupted_after(3))
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert text.count("predict") >= 3
    assert "\x1b[1A" in text  # the cursor goes back up
    assert text.endswith("\x1b[?25h")  # and is seen again


def test_pipe_gets_a_table_a_look() -> None:
    screen = Console(file=io.StringIO(), width=100)
    watch_queues(lambda: [VIEW], screen, interval_s=1, sleep=interrupted_after(2))
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().count("predict") == 2


def test_script_gets_a_line_a_look(capsys: pytest.CaptureFixture[str]) -> None:
    watch_queues(lambda: [VIEW], Console(), interval_s=1, is_json=True, sleep=interrupted_after(2))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["queues"][0]["waiting"] for line in lines] == [3, 3]
    assert lines[0]["read_at"] == "2001-09-09T01:46:40+00:00"
