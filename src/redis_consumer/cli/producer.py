"""Submits jobs exactly as the kiosk's web server does (contract, sections 1.1 and 2)."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from redis_consumer.digest import file_digest
from redis_consumer.errors import RedisUnavailable
from redis_consumer.job import EMPTY_FIELDS
from redis_consumer.text import in_utf8

if TYPE_CHECKING:
    from redis_consumer.redis import RedisClient
    from redis_consumer.storage import Storage

#: File name endings of archives. The web server knows only the first one.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
#: File name endings with two parts, which workers use to recognise archives.
_DOUBLE_SUFFIXES = (".tar.gz", ".zarr.zip")
#: Milliseconds in which replicas must confirm a job.
CONFIRM_MS = 1000


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


def submit_file(
    client: RedisClient, storage: Storage, path: Path, queue: str, fields: Mapping[str, str], *, replicas: int = 0
) -> Submission:
    """Upload a file and push a job for it.

    Args:
        client: a `RedisClient`.
        storage: a `Storage`.
        path: the file; an archive goes to the queue ``<queue>-zip``.
        queue: name of the queue, in lower case.
        fields: fields of the job that are not empty.
        replicas: number of replicas to wait for (``WAIT``), for at most a second; 0 for none.

    Raises:
        StorageUnavailable, RedisUnavailable: no reply.
    """
    key = upload_key(path)
    url = storage.upload_file(path, key)
    return push_job(client, path, queue, {"input_file_name": key, "url": url, **fields}, replicas=replicas)


def push_job(
    client: RedisClient, path: Path, queue: str, fields: Mapping[str, str], *, replicas: int = 0
) -> Submission:
    """Write the hash of a job, then push its key. In this order, no worker finds a key without a hash.

    Raises:
        RedisUnavailable: no reply, so the job may or may not exist; the error has its `job_id`.
    """
    target = f"{queue}-zip" if path.name.lower().endswith(ARCHIVES) else queue
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
    job_id = f"{target}:{name}:{uuid.uuid4()}"
    write = ("HSET", job_id, *(text for pair in texts.items() for text in pair))
    push = ("LPUSH", target, job_id)
    wait = [("WAIT", replicas, CONFIRM_MS)] if replicas else []
    try:
        _, _, *confirmed = client.batch(write, push, *wait)
    except RedisUnavailable as error:
        raise RedisUnavailable(str(error), job_id=job_id) from error
    return Submission(job_id, path, texts, *map(int, confirmed))


def upload_key(path: Path) -> str:
    """Give the object key of a file. It is made from a digest of the content, so that equal files are stored once.

    The key has the same ending as the file's name, by which workers recognise archives.
    """
    name = path.name.lower()
    suffix = next((each for each in _DOUBLE_SUFFIXES if name.endswith(each)), path.suffix.lower())
    return f"uploads/{file_digest(path, 'md5')}{in_utf8(suffix)}"
