"""How does a job get into a queue? Exactly as the kiosk's web server puts it there (contract, sections 1.1 and 2)."""

from __future__ import annotations

import hashlib
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

#: What the web server writes for every job, filled in or not.
EMPTY_FIELDS = {
    "model_name": "",
    "model_version": "",
    "preprocess_function": "",
    "postprocess_function": "",
    "cuts": "0",
    "url": "",
    "label": "",
    "scale": "",
    "channels": "",
    "dimension_order": "",
}


@dataclass(frozen=True)
class Submission:
    """A job that was pushed.

    Attributes:
        job_id: key of its hash.
        path: the local file it is for.
        fields: what was written into its hash.
    """

    job_id: str
    path: Path
    fields: Mapping[str, str] = field(default_factory=dict)


def submit_file(client: Any, storage: Any, path: Path, queue: str, fields: Mapping[str, str]) -> Submission:
    """Upload a file and push a job for it.

    Args:
        client: a `RedisClient`.
        storage: a `Storage`.
        path: the file; a ``.zip`` goes to the queue ``<queue>-zip``.
        queue: name of the queue, in lower case.
        fields: fields of the job that aren't empty.

    Raises:
        StorageUnavailable, RedisUnavailable: no reply.
    """
    key = upload_key(path)
    url = storage.upload_file(path, key)
    return push_job(client, path, queue, {"input_file_name": key, "url": url, **fields})


def push_job(client: Any, path: Path, queue: str, fields: Mapping[str, str]) -> Submission:
    """Write the hash of a job, then push its key: in this order, a worker never meets a key without a hash."""
    target = f"{queue}-zip" if path.suffix.lower() == ".zip" else queue
    name = as_text(path.name)
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
    client.hset(job_id, mapping=texts)
    client.lpush(target, job_id)
    return Submission(job_id, path, texts)


def upload_key(path: Path) -> str:
    """Give the object key of a file: its content's digest, so that the same file is stored once."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"uploads/{digest.hexdigest()}{as_text(path.suffix.lower())}"


def as_text(name: str | Path) -> str:
    """Write a file's name as text that Redis, JSON and terminals take: ``?`` for what isn't UTF-8."""
    return str(name).encode("utf-8", "replace").decode("utf-8")
