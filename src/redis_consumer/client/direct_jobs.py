"""Submits images to Redis and a bucket, without a web server, and fetches the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis_consumer.client.submit import submit_file
from redis_consumer.client.watch import JobState, read_hash, watch
from redis_consumer.errors import PermanentError, RetryableError, SettingsError
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage

#: Seconds that Redis may be unavailable.
OUTAGE_S = 60.0
_USUAL_PORT = 6379


class DirectJobs:
    """Jobs that are pushed to a queue as the kiosk's web server does.

    Args:
        redis: a client of Redis, or its address: ``redis://[:password@]host[:port]`` or ``host:port``. TLS and users
            come from the settings.
        bucket: the bucket, or its URL.
        queue: name of the queue for which a job names no kind.

    Raises:
        SettingsError: an address is wrong.
        ConsumerError: (methods) Redis or the bucket is unavailable, or the job failed.
    """

    def __init__(self, redis: RedisClient | str, bucket: Storage | str, queue: str = "predict") -> None:
        self._client = _client_of(redis) if isinstance(redis, str) else redis
        self._storage = Storage(bucket) if isinstance(bucket, str) else bucket
        self._queue = queue

    def submit(self, path: Path, given: Mapping[str, Any]) -> str:
        """Upload a file and push a job for it; return the id of the job."""
        fields = {name: _text(value) for name, value in given["options"].items()}
        name, _, version = given["model"].partition(":")
        fields |= {"model_name": name, "model_version": version} if name else {}
        fields |= {"outputs": ",".join(given["outputs"])} if given["outputs"] else {}
        return submit_file(self._client, self._storage, path, given["kind"] or self._queue, fields).job_id

    def wait(self, job_id: str, tell: Callable[[str, float], None], timeout_s: float) -> dict[str, str]:
        """Wait until a job has ended; return its fields. `tell` gets its stage and percent."""
        state = JobState(job_id, "new")
        for state in watch(self._client, [job_id], timeout_s=timeout_s):
            tell(state.status, state.progress)
        if not state.is_final:
            raise RetryableError(f"job {job_id}: has not ended within {timeout_s:g} s; it continues", job_id=job_id)
        if state.is_failed:
            raise PermanentError(state.short_reason, job_id=job_id)
        return read_hash(self._client, job_id)

    def fetch(self, job_id: str, path: Path) -> None:
        """Download the result zip of a job."""
        self._storage.download_file(read_hash(self._client, job_id)["output_file_name"], path)


def _client_of(address: str) -> RedisClient:
    parts = urlsplit(address if "://" in address else f"redis://{address}")
    if parts.scheme != "redis" or not parts.hostname:
        raise SettingsError(
            f"redis {parts.hostname or address}: is no address; give redis://host:port, and set REDIS_URL for TLS"
        )
    password = unquote(parts.password) if parts.password else None
    return RedisClient(parts.hostname, parts.port or _USUAL_PORT, 1, password=password, deadline_s=OUTAGE_S)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
