"""Watches submitted jobs, shows their progress and downloads their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from redis_consumer.cli.output import console, say
from redis_consumer.cli.producer import Submission
from redis_consumer.cli.service import ServiceCheck
from redis_consumer.cli.watch import NOT_SUBMITTED, JobState, watch
from redis_consumer.consumers.reasons import describe
from redis_consumer.errors import ConsumerError, RetryableError


@dataclass(frozen=True)
class Result:
    """State of the job of one file.

    Attributes:
        submission: the submitted job; its `job_id` is empty if the file has no job.
        state: the job's last state.
        path: the downloaded zip, None without a result.
        error: why the file was not submitted, or why its result could not be downloaded; otherwise empty.
        is_unavailable: whether that is because Redis or the bucket was unavailable.
    """

    submission: Submission
    state: JobState
    path: Path | None = None
    error: str = ""
    is_unavailable: bool = False

    @property
    def is_failed(self) -> bool:
        """Whether there will be no result."""
        return bool(self.error) or self.state.is_failed

    @property
    def reason(self) -> str:
        """Why there will be no result, on one line."""
        return self.error or self.state.short_reason

    def as_data(self) -> dict[str, str | None]:
        """Give it as data for scripts."""
        return {
            "job": self.submission.job_id or None,
            "file": str(self.submission.path),
            "status": self.state.status,
            "result": str(self.path) if self.path else None,
            "output_file_name": self.state.output_file_name or None,
            "output_url": self.state.output_url or None,
            "reason": self.reason or None,
        }


def not_submitted(path: Path, error: Exception | None = None) -> Result:
    """Give the result of a file whose job does not exist, or may not exist.

    Args:
        path: the file.
        error: the reason; None if the submission was not tried.
    """
    job_id = getattr(error, "job_id", None) or ""
    reason = "the command ended before the file was submitted" if error is None else describe(error)
    if job_id:
        reason += f"; the job may or may not exist; check it with `redis-consumer status {job_id}`"
    is_unavailable = isinstance(error, RetryableError)
    return Result(Submission(job_id, path), JobState(job_id, NOT_SUBMITTED), None, reason, is_unavailable)


class _Display(Protocol):
    def show(self, state: JobState) -> None:
        """Show the newest state of a job."""


def follow(
    client: Any,
    storage: Any,
    submissions: Sequence[Submission],
    folder: Path,
    *,
    timeout_s: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Result]:
    """Wait for jobs, show their progress and download the results. Yield each job when its state changes.

    Warns if no worker serves the queue of a job.

    Args:
        client: a `RedisClient`.
        storage: a `Storage`.
        submissions: the jobs.
        folder: folder for the results; created if it is missing.
        timeout_s: maximum seconds to wait, 0 for no limit.
        sleep: waits for a number of seconds; what it raises ends the waiting.

    Raises:
        RedisUnavailable: as `watch`.
    """
    by_id = {sent.job_id: sent for sent in submissions}
    names = result_names(submissions)
    states: dict[str, JobState] = {}
    service = ServiceCheck(client)

    def pause(seconds: float) -> None:
        service.look(states.values())
        sleep(seconds)

    with _display(submissions) as display:
        for state in watch(client, list(by_id), timeout_s=timeout_s, sleep=pause):
            display.show(state)
            states[state.job_id] = state
            if state.status == "done" and state.output_file_name:
                yield _downloaded(storage, by_id[state.job_id], state, folder / names[state.job_id])
            else:
                yield Result(by_id[state.job_id], state)


def result_names(submissions: Sequence[Submission]) -> dict[str, str]:
    """Name each result after its file, with a part of the job's id if two files have the same name."""
    stems = [sent.path.stem for sent in submissions]
    return {
        sent.job_id: f"{stem}-result.zip" if stems.count(stem) == 1 else f"{stem}-{sent.job_id[-12:]}-result.zip"
        for sent, stem in zip(submissions, stems, strict=True)
    }


def _downloaded(storage: Any, sent: Submission, state: JobState, path: Path) -> Result:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.download_file(state.output_file_name, path)
    except (ConsumerError, OSError) as error:
        reason = f"the result cannot be downloaded: {describe(error)}"
        return Result(sent, state, None, reason, isinstance(error, RetryableError))
    return Result(sent, state, path)


@contextmanager
def _display(submissions: Sequence[Submission]) -> Iterator[_Display]:
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
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

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
