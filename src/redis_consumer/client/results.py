"""Waits for submitted jobs and downloads their results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from redis_consumer.client.submit import Result, Submission
from redis_consumer.client.tables import unpack_result
from redis_consumer.client.unserved import ServiceCheck
from redis_consumer.client.watch import JobState, watch
from redis_consumer.errors import ConsumerError, RetryableError, describe
from redis_consumer.text import in_utf8, result_stem


def follow(
    client: Any,
    storage: Any,
    submissions: Sequence[Submission],
    folder: Path,
    *,
    timeout_s: float = 0.0,
    is_unzipped: bool = False,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Result]:
    """Wait for jobs and download the results. Yield the state of each job at the start and whenever it changes.

    Args:
        client: a `RedisClient`.
        storage: a `Storage`.
        submissions: the jobs.
        folder: folder for the results; created if it is missing.
        timeout_s: maximum seconds to wait, 0 for no limit.
        is_unzipped: whether each zip is replaced by a folder with its files.
        tell: called with a message if no worker serves the queue of a job.
        sleep: waits for a number of seconds; what it raises ends the waiting.

    Raises:
        RedisUnavailable: as `watch`.
    """
    by_id = {sent.job_id: sent for sent in submissions}
    names = result_names(submissions)
    states: dict[str, JobState] = {}
    service = ServiceCheck(client, tell)

    def pause(seconds: float) -> None:
        service.look(states.values())
        sleep(seconds)

    for state in watch(client, list(by_id), timeout_s=timeout_s, sleep=pause):
        states[state.job_id] = state
        if state.status == "done" and state.output_file_name:
            path = folder / names[state.job_id]
            yield _downloaded(storage, by_id[state.job_id], state, path, is_unzipped=is_unzipped)
        else:
            yield Result(by_id[state.job_id], state)


def result_names(submissions: Sequence[Submission]) -> dict[str, str]:
    """Name each result after its file like a worker, with a part of the job's id if two results had one name."""
    stems = [result_stem(in_utf8(sent.path.name)).name for sent in submissions]
    counts = Counter(stem.casefold() for stem in stems)
    return {
        sent.job_id: f"{stem}-result.zip" if counts[stem.casefold()] == 1 else f"{stem}-{sent.job_id[-12:]}-result.zip"
        for sent, stem in zip(submissions, stems, strict=True)
    }


def _downloaded(storage: Any, sent: Submission, state: JobState, path: Path, *, is_unzipped: bool) -> Result:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.download_file(state.output_file_name, path)
        path = unpack_result(path) if is_unzipped else path
    except (ConsumerError, OSError) as error:
        reason = f"the result cannot be downloaded: {describe(error)}"
        return Result(sent, state, None, reason, isinstance(error, RetryableError))
    return Result(sent, state, path)
