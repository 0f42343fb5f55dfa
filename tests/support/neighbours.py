"""The neighbours on Redis, each with the exact commands that it sends (contract, sections 1.2, 1.5 and 2)."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

#: What the web page asks for every 3 s.
PAGE_FIELDS = ("status", "progress", "output_url", "reason", "failures", "dim_order")
#: What the client reads one by one at a job's end.
CLIENT_FIELDS = (
    "created_at", "finished_at", "reason", "output_url", "prediction_time", "predict_retries", "postprocess_time",
    "upload_time", "download_time", "children_upload_time", "cleanup_time", "total_jobs", "total_time",
)  # fmt: skip
#: Seconds without a new ``updated_at`` after which the janitor looks at the pod: three times its 5 s.
JANITOR_STALE_S = 15
#: The exporter's script: jobs that wait and jobs that run.
EXPORTER = """
local running = 0
local cursor = "0"
repeat
  local page = redis.call("SCAN", cursor, "MATCH", "processing-" .. ARGV[1] .. ":*", "COUNT", 1000)
  cursor = page[1]
  for _, list in ipairs(page[2]) do
    running = running + redis.call("LLEN", list)
  end
until cursor == "0"
return redis.call("LLEN", ARGV[1]) + running
"""


def set_fields(db: Any, key: str, fields: dict[str, Any]) -> None:
    """HMSET, which redis-py would warn of."""
    db.execute_command("HMSET", key, *[text for pair in fields.items() for text in pair])


def client_names(uploaded: str, prefix: str = "uploads") -> dict[str, str]:
    """Names in the client's request for what the web server answered to its upload: a key, or on S3 a whole URL.

    It takes them for paths, and makes them relative to its folder of uploads.
    """
    name = posixpath.relpath(uploaded, prefix)
    return {"imageName": name, "uploadedName": posixpath.join(prefix, name)}


def saved_name(output_url: str) -> str:
    """Name of the file that the client saves a result under: what follows the link's last slash."""
    return output_url.rpartition("/")[2]


def now() -> str:
    """The time as Python's neighbours write it."""
    return datetime.now(timezone.utc).isoformat()


@dataclass
class Frontend:
    """The web server, which the web page and the client talk to.

    Attributes:
        db: a plain client.
    """

    db: Any

    def predict(self, body: dict[str, Any]) -> str:
        """``POST /api/predict``; gives the job's key."""
        name, form = body["imageName"], body.get("jobForm", {})
        queue = body["jobType"] + ("-zip" if name.lower().endswith(".zip") else "")
        key = f"{queue}:{name}:{uuid.uuid4()}"
        stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        fields = {
            "original_name": name,
            "input_file_name": body.get("uploadedName") or name,
            "model_name": body.get("modelName", ""),
            "model_version": body.get("modelVersion", ""),
            "preprocess_function": body.get("preprocessFunction", ""),
            "postprocess_function": body.get("postprocessFunction", ""),
            "cuts": body.get("cuts") or "0",
            "url": body.get("imageUrl", ""),
            "label": body.get("dataLabel") or "",
            "dimension_order": form.get("dimensionOrder", ""),
            "channels": form.get("selectedChannels", ""),
            "scale": form.get("scale", ""),
            "segmentation_type": form.get("segmentationType", ""),
            "status": "new",
            "created_at": stamp,
            "updated_at": stamp,
            "identity_upload": "frontend-0",
        }
        set_fields(self.db, key, fields)
        self.db.lpush(queue, key)
        return key

    def read(self, key: str, *fields: str) -> dict[str, str | None]:
        """``POST /api/redis`` with several fields."""
        return dict(zip(fields, self.db.hmget(key, *fields), strict=True))

    def expire(self, key: str, seconds: int = 3600) -> int:
        """``POST /api/redis/expire``; the client takes nothing but 1."""
        return int(self.db.expire(key, seconds))


@dataclass
class OldWorker:
    """One pod of the old software: it knows no leases.

    Attributes:
        db: a plain client.
        name: of the pod.
        queue: that it serves.
    """

    db: Any
    name: str
    queue: str = "predict"

    @property
    def processing(self) -> str:
        return f"processing-{self.queue}:{self.name}"

    def take(self) -> str | None:
        """One look for a job, from the recovery of its own stranded ones to the first status."""
        while self.db.rpoplpush(self.processing, self.queue) is not None:
            pass
        if not self.db.llen(self.queue):
            return None
        key = self.db.rpoplpush(self.queue, self.processing)
        if key is None:
            return None
        self.update(key)
        assert self.db.hget(key, "input_file_name")
        if self.db.hgetall(key)["status"] in ("done", "failed"):
            self.db.lrem(self.processing, 1, key)
            return None
        self.update(key, status="started", identity_started=self.name)
        return str(key)

    def update(self, key: str, **fields: str) -> None:
        set_fields(self.db, key, {**fields, "updated_at": now(), "updated_by": self.name})

    def finish(self, key: str, **fields: str) -> None:
        self.update(key, status="done", finished_at=now(), **fields)
        self.db.lrem(self.processing, 1, key)

    def put_back(self) -> None:
        self.db.rpoplpush(self.processing, self.queue)


@dataclass
class Janitor:
    """It returns jobs of pods that are gone.

    Attributes:
        db: a plain client.
        queue: that it looks after; its ``-zip`` too.
        pods: in phase Running.
        ahead_s: seconds by which its clock is ahead, so that nobody need wait for a job to look stale.
        removed: entries that it took away.
        pushed: jobs that it pushed into their queue again.
    """

    db: Any
    queue: str = "predict"
    pods: Collection[str] = ()
    ahead_s: float = 0.0
    removed: list[str] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)

    def clean(self) -> None:
        """One round."""
        for queue in (self.queue, f"{self.queue}-zip"):
            for name in self.db.scan_iter(match=f"processing-{queue}:*", count=1000):
                for key in self.db.lrange(name, 0, -1):
                    self._look_at(name, key)

    def is_stale(self, updated_at: str | None) -> bool:
        """Judge a job's age; one without a time is never stale, one without a zone ends the janitor."""
        if updated_at is None:
            return False
        age = datetime.now(timezone.utc) - datetime.fromisoformat(updated_at.replace("Z", "+00:00"))
        return age + timedelta(seconds=self.ahead_s) > timedelta(seconds=JANITOR_STALE_S)

    def _look_at(self, name: str, key: str) -> None:
        status, updated_at, updated_by = self.db.hmget(key, "status", "updated_at", "updated_by")
        if status is None and updated_at is None and updated_by is None:
            self._remove(name, key)
        elif self.is_stale(updated_at) and name.rpartition(":")[2] not in self.pods:
            self._remove(name, key)
            if status not in ("done", "failed"):
                self.db.lpush(name.removeprefix("processing-").rpartition(":")[0], key)
                self.pushed.append(key)

    def _remove(self, name: str, key: str) -> None:
        self.db.lrem(name, 1, key)
        self.removed.append(key)


def autoscaler_count(db: Any, queue: str = "predict") -> int:
    """Jobs as the autoscaler sees them: those that wait, and a processing list for each one that runs."""
    return int(db.llen(queue)) + len(list(db.scan_iter(match=f"processing-{queue}:*", count=1000)))


def exporter_count(db: Any, queue: str = "predict") -> int:
    """Jobs as the exporter of metrics sees them."""
    return int(db.eval(EXPORTER, 0, queue))
