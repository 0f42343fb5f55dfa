"""Shows the progress of submitted jobs: as bars on a terminal, else as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from redis_consumer.cli.output import console, say
from redis_consumer.client.submit import Submission
from redis_consumer.client.watch import JobState


class _Display(Protocol):
    def show(self, state: JobState) -> None:
        """Show the newest state of a job."""


@contextmanager
def progress_of(submissions: Sequence[Submission]) -> Iterator[_Display]:
    """Within the block, show the states that are passed to ``show``."""
    screen = console(is_data=False)
    if screen.is_terminal:
        with _Bars(screen, submissions) as bars:
            yield bars
    else:
        yield _Lines(submissions)


class _Lines:
    """Prints a line for each change of status, for logs and pipes."""

    def __init__(self, submissions: Sequence[Submission]) -> None:
        self._names = {sent.job_id: sent.path.name for sent in submissions}
        self._said: dict[str, str] = {}

    def show(self, state: JobState) -> None:
        if self._said.get(state.job_id) != state.status:
            self._said[state.job_id] = state.status
            say(f"{self._names[state.job_id]}: {state.status.replace('-', ' ')}")


class _Bars:
    """Shows a live bar for each running job on a terminal. With many jobs, one more bar shows the total."""

    def __init__(self, screen: Any, submissions: Sequence[Submission]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[status]}", style="bold", markup=False),
            TimeElapsedColumn(),
            console=screen,
        )
        self._total = self._progress.add_task(
            f"{len(submissions)} jobs", total=len(submissions), status="", visible=False
        )
        # Waiting jobs have no bar, since more bars than lines on the screen flicker.
        self._is_crowded = len(submissions) > max(screen.height - 4, 1)
        self._progress.update(self._total, visible=self._is_crowded)
        self._tasks = {
            sent.job_id: self._progress.add_task(sent.path.name, total=100, status="new", visible=not self._is_crowded)
            for sent in submissions
        }

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, state: JobState) -> None:
        task = self._tasks[state.job_id]
        is_running = state.status != "new" and not state.is_final
        is_visible = is_running or state.is_failed if self._is_crowded else True
        self._progress.update(task, completed=state.progress, status=state.status.replace("-", " "), visible=is_visible)
        if state.is_final:
            self._progress.stop_task(task)
            self._progress.advance(self._total)
