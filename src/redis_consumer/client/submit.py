"""Submits jobs for files exactly as the kiosk's web server does (contract, sections 1.1 and 2)."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from redis_consumer.client.inputs import ARCHIVES, ONE_IMAGE, files_of, others_of, upload_key
from redis_consumer.client.watch import NOT_SUBMITTED, JobState
from redis_consumer.errors import ConsumerError, RedisUnavailable, RetryableError, SettingsError, describe
from redis_consumer.job import EMPTY_FIELDS, unreadable_archive
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from redis_consumer.text import in_utf8
from redis_consumer.wanted import AT_ONCE, OrderedPool

#: Milliseconds in which replicas must confirm a job.
CONFIRM_MS = 1000
#: Number of failed files in a row, during an outage, after which the others are not tried.
_MOST_OUTAGES = 3


@dataclass(frozen=True)
class Submission:
    """A job that was pushed.

    Attributes:
        job_id: key of its hash.
        path: the local file.
        fields: the fields written to its hash.
        replicas: number of replicas that have it, None if none were asked.
    """

    job_id: str
    path: Path
    fields: Mapping[str, str] = field(default_factory=dict)
    replicas: int | None = None


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
        """Return it as data for scripts."""
        return {
            "job": self.submission.job_id or None,
            "file": str(self.submission.path),
            "status": self.state.status,
            "result": str(self.path) if self.path else None,
            "output_file_name": self.state.output_file_name or None,
            "output_url": self.state.output_url or None,
            "objects": self.state.objects or None,
            "reason": self.reason or None,
        }


def not_submitted(path: Path, error: Exception | None = None) -> Result:
    """Return the result of a file whose job does not exist, or may not exist.

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


def submit_file(
    client: RedisClient, storage: Storage, path: Path, queue: str, fields: Mapping[str, str], *, replicas: int = 0
) -> Submission:
    """Upload a file, with the other files of its OME-TIFF, or an OME-Zarr folder, and push a job for it.

    Args:
        client: a `RedisClient`.
        storage: a `Storage`.
        path: the file; an archive goes to the queue ``<queue>-zip``, but an OME-Zarr in one file doesn't.
        queue: name of the queue, in lower case.
        fields: fields of the job that are not empty.
        replicas: number of replicas to wait for (``WAIT``), for at most a second; 0 for none.

    Raises:
        InvalidImage: files of its OME-TIFF are missing.
        StorageUnavailable, RedisUnavailable: no reply.
    """
    key = upload_key(path)
    for other in others_of(path):
        storage.upload_file(other, f"{key.rpartition('/')[0]}/{in_utf8(other.name)}")
    url = _upload_folder(storage, path, key) if path.is_dir() else storage.upload_file(path, key)
    return push_job(client, path, queue, {"input_file_name": key, "url": url, **fields}, replicas=replicas)


def _upload_folder(storage: Storage, folder: Path, key: str) -> str:
    """Upload every file of a folder and return the link of the folder."""
    with OrderedPool(AT_ONCE) as pool:
        for _ in pool.map(
            lambda file: storage.upload_file(file, f"{key}/{file.relative_to(folder).as_posix()}"), files_of(folder)
        ):
            pass
    return storage.get_public_url(key)


def prepare_job(path: Path, queue: str, fields: Mapping[str, str]) -> Submission:
    """Return a job with all the fields of its hash. Nothing is written; see `push_commands`."""
    is_archive = path.name.lower().endswith(ARCHIVES) and not fields["input_file_name"].endswith(ONE_IMAGE)
    target = f"{queue}-zip" if is_archive else queue
    name = in_utf8(path.name)
    now = datetime.now(timezone.utc).isoformat()
    texts = {
        "original_name": name,
        **EMPTY_FIELDS,
        **fields,
        "status": "new",
        "created_at": now,
        "updated_at": now,
        "identity_upload": socket.gethostname(),
    }
    return Submission(f"{target}:{name}:{uuid.uuid4()}", path, texts)


def push_commands(sent: Submission) -> list[tuple[str, ...]]:
    """Return the commands that write the hash of a job and push its key. In this order, no worker finds a key without
    a hash.
    """
    write = ("HSET", sent.job_id, *(text for pair in sent.fields.items() for text in pair))
    return [write, ("LPUSH", sent.job_id.partition(":")[0], sent.job_id)]


def push_job(
    client: RedisClient, path: Path, queue: str, fields: Mapping[str, str], *, replicas: int = 0
) -> Submission:
    """Write the hash of a job, then push its key.

    Raises:
        RedisUnavailable: no reply, so the job may or may not exist; the error has its `job_id`.
    """
    sent = prepare_job(path, queue, fields)
    wait = [("WAIT", replicas, CONFIRM_MS)] if replicas else []
    try:
        _, _, *confirmed = client.batch(*push_commands(sent), *wait)
    except RedisUnavailable as error:
        raise RedisUnavailable(str(error), job_id=sent.job_id) from error
    return replace(sent, replicas=int(confirmed[0]) if confirmed else None)


def submit_files(
    client: RedisClient,
    storage: Storage,
    files: list[Path],
    queue: str,
    fields: dict[str, str],
    *,
    warn: Callable[[str], None],
    replicas: int = 0,
) -> Iterator[Result]:
    """Submit files in order and yield the result of each.

    After several files in a row that fail because Redis or the bucket is unavailable, the others are not tried.

    Args:
        client: a `RedisClient`.
        storage: a `Storage`.
        files: images or archives.
        queue: name of the queue, in lower case.
        fields: fields of the jobs that are not empty.
        warn: called with a message if workers cannot read an archive, or too few replicas have a job.
        replicas: number of replicas that must confirm each job.

    Raises:
        SettingsError: no file can be submitted with these settings.
    """
    outages: list[RetryableError] = []
    for path in files:
        if len(outages) == _MOST_OUTAGES:
            yield not_submitted(path, type(outages[-1])(f"not tried: {outages[-1]}"))
            continue
        try:
            sent = submit_file(client, storage, path, queue, fields, replicas=replicas)
        except SettingsError:
            raise
        except (ConsumerError, OSError) as error:
            outages = [*outages, error] if isinstance(error, RetryableError) else []
            yield not_submitted(path, error)
            continue
        outages = []
        for problem in _problems_of(sent, replicas):
            warn(f"Warning: {problem}")
        yield Result(sent, JobState(sent.job_id, "new"))


def _problems_of(sent: Submission, replicas: int) -> Iterator[str]:
    if problem := unreadable_archive(in_utf8(sent.path.name)):
        yield f"{problem}, unless a consumer of your own reads it"
    if sent.replicas is not None and sent.replicas < replicas:
        yield (
            f"{sent.job_id} is on {sent.replicas} of {replicas} replicas: a failover can lose it now; "
            "see `redis-cli info replication`"
        )
