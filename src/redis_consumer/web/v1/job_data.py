"""Reads jobs from Redis as the objects that API v1 gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from redis_consumer.client.queue_state import QueueView, estimate
from redis_consumer.client.standstill import explain
from redis_consumer.client.watch import SHARES, read_fields, read_hash
from redis_consumer.client.workers import read_facts
from redis_consumer.job import EMPTY_FIELDS, OWN_FIELDS, Job
from redis_consumer.queue.scripts import own_key
from redis_consumer.redis import RedisClient
from redis_consumer.text import decimal, last_line, mask_secrets, result_stem, whole
from redis_consumer.web.problems import parts_of

#: Entries of a queue in which the places of jobs are looked up.
MOST_PLACES = 10_000
#: Fields of a job that are no options of it, besides `OWN_FIELDS`.
_NOT_OPTIONS = frozenset({"model_name", "model_version", "outputs", "cuts", "scale_from"})
#: Files of each result by name, with the output that holds them.
FILES = {
    "labels.tif": "labels", "labels.ome.tif": "ome", "rois.zip": "rois", "objects.geojson": "geojson",
    "objects.csv": "table", "objects.parquet": "parquet", "overlay.png": "overlay",
}  # fmt: skip
TRACK_FILES = ("tracks.csv", "lineage.json")
RESULT = "result.zip"


def queue_of_job(job_id: str) -> str:
    """Return the queue that a job's key names; empty for a key that is no job's."""
    name, colon, _ = job_id.partition(":")
    return name.lower() if colon and name != "redis-consumer" else ""


def read_jobs(
    client: RedisClient, ids: Sequence[str], kind_of: Callable[[str], str], job_timeout_s: float = 3600.0
) -> dict[str, dict[str, Any]]:
    """Read jobs, without those that don't exist.

    Args:
        client: of Redis.
        ids: keys of their hashes.
        kind_of: returns the kind of job for a queue.
        job_timeout_s: seconds for one run.

    Returns:
        JOB of the API by id. The ``owner`` is in it; callers decide who may see it.
    """
    hashes = read_hashes(client, ids)
    states = places_of(client, hashes, job_timeout_s)
    return {
        job_id: job_data(job_id, fields, kind_of(queue_of_job(job_id)), **states.get(job_id, {}))
        for job_id, fields in hashes.items()
    }


def read_hashes(client: RedisClient, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read the hashes of jobs by id, without those that aren't jobs."""
    known = [job_id for job_id in ids if queue_of_job(job_id)]
    if len(known) == 1:
        found = {known[0]: read_hash(client, known[0])} if client.type(known[0]) == "hash" else {}
    else:
        rows = read_fields(client, known, ("status",)) if known else []
        living = [job_id for job_id, row in zip(known, rows, strict=True) if row[0] is not None]
        replies = client.batch(*(("HGETALL", job_id) for job_id in living)) if living else []
        found = {
            # As the version of the protocol has it.
            job_id: dict(reply) if isinstance(reply, Mapping) else dict(zip(reply[::2], reply[1::2], strict=True))
            for job_id, reply in zip(living, replies, strict=True)
        }
    return {job_id: fields for job_id, fields in found.items() if "status" in fields}


def places_of(
    client: RedisClient, hashes: Mapping[str, Mapping[str, str]], job_timeout_s: float
) -> dict[str, dict[str, Any]]:
    """Read where jobs are that have not ended: place in the queue, attempt, and whether they must stop.

    Returns:
        Arguments of `job_data` by id.
    """
    by_queue = _open_jobs_by_queue(hashes)
    names = list(by_queue)
    if not names:
        return {}
    facts = read_facts(client, names)
    lists = [name for name, each in zip(names, facts, strict=True) if each.key_type == "list"]
    commands: list[Sequence[Any]] = [("LRANGE", name, -MOST_PLACES, -1) for name in lists]
    for name in names:
        commands.append(("HMGET", own_key("holders", name), *by_queue[name]))
        commands.append(("SMEMBERS", own_key("cancelled", name)))
    replies = iter(client.batch(*commands))
    entries_of = {name: next(replies) for name in lists}
    states: dict[str, dict[str, Any]] = {}
    for name, each in zip(names, facts, strict=True):
        entries = entries_of.get(name, [])
        places = {job_id: index + 1 for index, job_id in enumerate(reversed(entries))}
        holders, stopping = next(replies), set(next(replies))
        sentence = explain(each, job_timeout_s=job_timeout_s).sentence
        for job_id, holder in zip(by_queue[name], holders, strict=True):
            place = places.get(job_id)
            waits = place is not None or (not holder and len(entries) == MOST_PLACES)
            states[job_id] = {
                "attempt": _attempt_of(holder),
                "is_stopping": job_id in stopping,
                "queue": _place(name, each.view, place, sentence) if waits else None,
            }
    return states


def _attempt_of(holder: Any) -> int:
    return int(str(holder or "0").partition(" ")[0] or 0)


def _open_jobs_by_queue(hashes: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    by_queue: dict[str, list[str]] = {}
    for job_id, fields in hashes.items():
        if fields.get("status") not in ("done", "failed"):
            by_queue.setdefault(queue_of_job(job_id), []).append(job_id)
    return by_queue


def _place(name: str, view: QueueView, place: int | None, sentence: str) -> dict[str, Any]:
    left_s = estimate(place, view)[0] if place is not None and view.workers else None
    return {
        "name": name,
        "place": place,
        "waiting": view.waiting,
        "seconds_left": None if left_s is None else round(left_s),
        "sentence": sentence,
    }


def status_of(fields: Mapping[str, str], *, is_stopping: bool = False) -> str:
    """Return the status of a job for the API."""
    status = fields.get("status", "")
    if status == "failed":
        return "cancelled" if fields.get("reason", "").startswith("JobCancelled") else "failed"
    if status == "done":
        return "done"
    if is_stopping:
        return "cancelling"
    return status if status in ("new", "waiting") else "running"


def _times(fields: Mapping[str, str], *, is_over: bool) -> dict[str, Any]:
    finished = fields.get("finished_at", "") or (fields.get("updated_at", "") if is_over else "")
    return {"created": utc(fields.get("created_at", "")), "started": None, "finished": utc(finished)}


def job_data(
    job_id: str,
    fields: Mapping[str, str],
    kind: str,
    *,
    attempt: int = 0,
    is_stopping: bool = False,
    queue: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return JOB of the API for the hash of a job."""
    status = status_of(fields, is_stopping=is_stopping)
    stage = fields.get("status", "")
    model, version = fields.get("model_name", ""), fields.get("model_version", "")
    is_done = status == "done" and bool(fields.get("output_file_name"))
    return {
        "id": job_id,
        "status": "running" if status == "new" and attempt else status,
        "kind": kind,
        "model": ":".join(filter(None, (model, version))) if model else "",
        "stage": stage if status == "running" else "",
        "progress": _progress(fields, stage),
        "queue": queue,
        "attempt": attempt,
        "problem": trouble_of(fields.get("reason", "")) if status == "failed" else None,
        "warning": fields.get("warning", ""),
        "objects": _whole(fields.get("objects", "")),
        "quality": fields.get("quality", ""),
        "read": {
            name: fields.get(name, "")
            for name in ("axes_read", "channels_read", "scale", "scale_from", "object_diameter_px")
        },
        "times": _times(fields, is_over=_is_over(status)),
        "input": {"upload": fields.get("upload", ""), "name": Job(job_id, fields).get("original_name")},
        "options": options_of(fields),
        "outputs": [part.strip() for part in fields.get("outputs", "").split(",") if part.strip()],
        "region": region_of(fields.get("input_region", "")),
        "result": _result(job_id, fields) if is_done else None,
        "files": files_of(job_id, fields, kind) if is_done else [],
        "batch": fields.get("batch", ""),
        "again_of": fields.get("again_of", ""),
        "owner": fields.get("owner", ""),
        "version": _whole(fields.get("labels_version", "")) or 0,
    }


def options_of(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a job that are not empty: what its producer gave."""
    is_found = fields.get("scale_from") not in (None, "", "job")
    left_out = OWN_FIELDS | _NOT_OPTIONS | ({"scale"} if is_found else set())
    return {
        name: text
        for name, text in sorted(fields.items())
        if text and name not in left_out and not name.endswith("_time")
    }


def trouble_of(reason: str) -> dict[str, str]:
    """Read why a job failed from the last line of its reason, ``Error: field NAME: detail; what to do``."""
    title, colon, text = last_line(reason).partition(": ")
    if not colon or " " in title:
        title, text = "Failed", last_line(reason)
    field, detail, hint = parts_of(text)
    return {"title": title, "detail": mask_secrets(detail), "field": field, "hint": hint}


def region_of(text: str) -> dict[str, int] | None:
    """Read the field ``input_region``: ``x,y,width,height``."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return None
    return dict(zip(("x", "y", "width", "height"), map(int, parts), strict=True))


def utc(moment: str) -> str | None:
    """Return an ISO 8601 time with Z; None for an empty text."""
    return re.sub(r"\+00:00$", "Z", moment) or None


def files_of(job_id: str, fields: Mapping[str, str], kind: str) -> list[dict[str, str]]:
    """Return the files of a result."""
    names = [name for name in FILES if name != "objects.parquet" or find_spec("pyarrow")]
    if kind in ("tracking", "caliban"):
        names += TRACK_FILES
    if not fields.get("objects") and kind not in ("tracking", "caliban"):
        names = []
    return [
        {"name": name, "kind": FILES.get(name, name.partition(".")[0]), "url": file_url(job_id, name)}
        for name in [*names, RESULT]
    ]


def file_url(job_id: str, name: str) -> str:
    """Return the address of a file of a job."""
    return f"/api/v1/jobs/{quote(job_id.encode(errors='surrogateescape'), safe='')}/files/{name}"


def result_name(fields: Mapping[str, str]) -> str:
    """Return the name under which a result is downloaded."""
    stem = result_stem(fields.get("original_name") or "result").name
    return f"{stem}-result.zip"


def _result(job_id: str, fields: Mapping[str, str]) -> dict[str, Any]:
    return {"url": file_url(job_id, RESULT), "name": result_name(fields), "size": None, "expires": None}


def _is_over(status: str) -> bool:
    return status in ("done", "failed", "cancelled")


def _progress(fields: Mapping[str, str], stage: str) -> float:
    if stage in ("done", "failed"):
        return 100.0
    try:
        return min(max(decimal(fields.get("progress", "")), 0.0), 99.0)
    except ValueError:
        return SHARES.get(stage, 50.0)


def _whole(text: str) -> int | None:
    try:
        return whole(text) if text else None
    except ValueError:
        return None


def given_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Return what the producer of a job gave, for a job that runs again."""
    kept = {
        name: fields.get(name, "") for name in ("input_file_name", "original_name", "url", "upload", "input_region")
    }
    empty: Iterable[str] = EMPTY_FIELDS
    model = {name: fields.get(name, "") for name in empty if name in _NOT_OPTIONS}
    given = {**kept, **model, **options_of(fields), "outputs": fields.get("outputs", "")}
    return {name: text for name, text in given.items() if text}
