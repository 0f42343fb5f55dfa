"""Creates, lists, repeats and cancels batches: jobs of many uploads with the same settings."""

from __future__ import annotations

import csv
import io
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from redis_consumer.client.queue_state import read_queues
from redis_consumer.client.watch import read_fields
from redis_consumer.text import cell, last_line, whole
from redis_consumer.web.access import User, may_see, user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.once import IdempotencyKey, once
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.v1.job_data import given_fields, queue_of_job, read_hashes, status_of, utc
from redis_consumer.web.v1.jobs import (
    batch_jobs_key,
    cancel,
    check_batch,
    input_fields,
    push_all,
    settings_fields,
)  # fmt: skip
from redis_consumer.web.v1.merged_zip import merged
from redis_consumer.web.v1.shapes import BatchPage, BatchReply, NewBatch

router = APIRouter()

#: Batches that are listed.
_MOST_LISTED = 100
#: Jobs whose hashes are read at once.
_READ_AT_ONCE = 200
#: Status of a job in the counts of its batch, by its own.
_COUNTED = {
    "new": "waiting", "waiting": "running", "running": "running", "cancelling": "running", "done": "done",
    "failed": "failed", "cancelled": "cancelled", "expired": "done",
}  # fmt: skip
_COLUMNS = (
    "image",
    "job",
    "status",
    "objects",
    "quality",
    "warning",
    "reason",
    "model",
    "scale",
    "created",
    "finished",
)
_FILE: dict[int | str, dict[str, Any]] = {200: {"description": "The file.", "content": {"application/zip": {}}}}
_CSV: dict[int | str, dict[str, Any]] = {200: {"description": "The table.", "content": {"text/csv": {}}}}
_CREATED: dict[int | str, dict[str, Any]] = {201: {"description": "The batch was created."}}


@router.post("/batches", status_code=201, response_model=BatchReply, responses={**problems(404, 409, 429), **_CREATED})
def create_batch(request: Request, body: NewBatch, idempotency_key: IdempotencyKey = "") -> Response:
    """Create one job for each upload, all with the same settings."""
    context, user = context_of(request), user_of(request)
    with once(context, user, idempotency_key, body.model_dump_json()) as known:
        if not known:
            known.append(_create(context, user, body))
    batch = known[0]
    return JSONResponse(batch_data(context, batch), 201, {"Location": f"/api/v1/batches/{batch}"})


@router.get("/batches", response_model=BatchPage, responses=problems())
def list_batches(request: Request) -> dict[str, Any]:
    """List the batches of the user, the latest first."""
    context, user = context_of(request), user_of(request)
    ids = context.client.zrevrange(_history_key(user.name), 0, _MOST_LISTED - 1)
    found = [batch_data(context, batch) for batch in ids if context.client.exists(_key(batch))]
    return {"items": [batch for batch in found if may_see(user, batch)]}


@router.get("/batches/{batch}", response_model=BatchReply, responses=problems(404))
def read_batch(request: Request, batch: str) -> dict[str, Any]:
    """Read a batch."""
    context = context_of(request)
    check_batch(context, user_of(request), batch)
    return batch_data(context, batch)


@router.get("/batches/{batch}/summary.csv", response_class=Response, responses={**problems(404), **_CSV})
def read_summary(request: Request, batch: str) -> Response:
    """Return a table with a row for each job of a batch."""
    context = context_of(request)
    fields = check_batch(context, user_of(request), batch)
    rows = _summary(context, _ids(context, batch))
    name = quote(f"{fields.get('name') or batch}-summary.csv")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/batches/{batch}/result.zip", response_class=Response, responses={**problems(404, 409), **_FILE})
def read_results(request: Request, batch: str) -> Response:
    """Return the results so far in one zip, with a folder for each image. It is made while it is sent."""
    context = context_of(request)
    fields = check_batch(context, user_of(request), batch)
    ids = _ids(context, batch)
    counts, _ = count_jobs(context, ids)
    if not counts["done"]:
        raise Problem(409, "No job of this batch is done yet.", hint="Wait, or read its summary.")
    name = quote(f"{fields.get('name') or batch}-result.zip")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    body = merged(context.storage, context.folder, _results(context, ids), "".join(_summary(context, ids)))
    return StreamingResponse(body, media_type="application/zip", headers=headers)


@router.post(
    "/batches/{batch}/again", status_code=201, response_model=BatchReply,
    responses={**problems(404, 409, 429), **_CREATED},
)  # fmt: skip
def repeat_batch(
    request: Request, batch: str, failed: Annotated[bool, Query(description="Only the failed jobs.")] = False
) -> dict[str, Any]:
    """Run the failed jobs of a batch again, or all that have ended. Each takes the place of the job that it repeats."""
    context, user = context_of(request), user_of(request)
    fields = check_batch(context, user, batch)
    ended = ("failed",) if failed else ("failed", "cancelled", "done")
    ids = _ids(context, batch)
    hashes = [
        (job_id, found)
        for start in range(0, len(ids), _READ_AT_ONCE)
        for job_id, found in read_hashes(context.client, ids[start : start + _READ_AT_ONCE]).items()
        if status_of(found) in ended
    ]
    if not hashes:
        raise Problem(409, f"No job of this batch has {'failed' if failed else 'ended'}.")
    owner = User(fields.get("owner", ""), user.role)
    again = [{**given_fields(found), "again_of": job_id} for job_id, found in hashes]
    push_all(context, owner, fields.get("kind", ""), again, batch)
    context.client.zrem(batch_jobs_key(batch), *(job_id for job_id, _ in hashes))
    return batch_data(context, batch)


@router.delete("/batches/{batch}", response_model=BatchReply, responses=problems(404))
def cancel_batch(request: Request, batch: str) -> dict[str, Any]:
    """Cancel the jobs of a batch that have not ended. Results that exist are kept."""
    context = context_of(request)
    check_batch(context, user_of(request), batch)
    ids = _ids(context, batch)
    for job_id, row in zip(ids, read_fields(context.client, ids, ("status",)), strict=True):
        if row[0] not in (None, "done", "failed"):
            cancel(context, job_id)
    return batch_data(context, batch)


def _create(context: WebContext, user: User, body: NewBatch) -> str:
    settings = settings_fields(context, body)
    inputs = []
    for number, upload in enumerate(body.uploads):
        try:
            inputs.append({**input_fields(context, user, upload), **settings})
        except Problem as problem:
            problem.field = f"uploads.{number}"
            raise
    batch = secrets.token_urlsafe(12)
    options = {
        name: text for name, text in settings.items() if text and name not in ("outputs", "model_name", "model_version")
    }
    texts = {
        "name": body.name,
        "owner": user.name,
        "kind": body.kind,
        "model": body.model,
        "options": json.dumps(options),
        "outputs": ",".join(body.outputs),
        "created_at": datetime.now(timezone.utc).isoformat(),
    }
    context.client.hset(_key(batch), mapping=texts)
    context.client.expire(_key(batch), context.options.history_s)
    context.client.zadd(_history_key(user.name), {batch: time.time()})
    context.client.expire(_history_key(user.name), context.options.history_s)
    push_all(context, user, body.kind, inputs, batch)
    return batch


def _key(batch: str) -> str:
    return f"redis-consumer:batch:{batch}"


def _history_key(owner: str) -> str:
    return f"redis-consumer:batches:{owner}"


def _ids(context: WebContext, batch: str) -> list[str]:
    ids: list[str] = context.client.zrange(batch_jobs_key(batch), 0, -1)
    return ids


def batch_data(context: WebContext, batch: str, known: dict[str, tuple[str, int]] | None = None) -> dict[str, Any]:
    """Return BATCH of the API.

    Args:
        context: of the server.
        batch: id of a batch that exists.
        known: status and objects of the jobs that have ended, which are not read again; more are added.
    """
    fields = context.client.hgetall(_key(batch))
    ids = _ids(context, batch)
    counts, objects = count_jobs(context, ids, known)
    is_over = not (counts["waiting"] or counts["running"])
    return {
        "id": batch,
        "name": fields.get("name", ""),
        "counts": counts,
        "objects": objects,
        "seconds_left": None if is_over else _left_s(context, ids, counts),
        "times": {"created": utc(fields.get("created_at", "")), "started": None, "finished": None},
        "kind": fields.get("kind", ""),
        "model": fields.get("model", ""),
        "options": json.loads(fields.get("options") or "{}"),
        "outputs": [part for part in fields.get("outputs", "").split(",") if part],
        "owner": fields.get("owner", ""),
    }


def count_jobs(
    context: WebContext, ids: Sequence[str], known: dict[str, tuple[str, int]] | None = None
) -> tuple[dict[str, int], int]:
    """Count jobs by status and their objects; see `batch_data`. Jobs that have expired count as done."""
    known = {} if known is None else known
    unknown = [job_id for job_id in ids if job_id not in known]
    rows = read_fields(context.client, unknown, ("status", "objects"))
    failed = [job_id for job_id, row in zip(unknown, rows, strict=True) if row[0] == "failed"]
    reasons = dict(zip(failed, read_fields(context.client, failed, ("reason",)), strict=True))
    found = dict(known)
    for job_id, (status, objects) in zip(unknown, rows, strict=True):
        fields = {"status": status or "done", "reason": (reasons.get(job_id) or [""])[0] or ""}
        found[job_id] = (_COUNTED[status_of(fields)], _whole(objects))
        if found[job_id][0] in ("done", "failed", "cancelled"):
            known[job_id] = found[job_id]
    counts = Counter(found[job_id][0] for job_id in ids)
    names = ("waiting", "running", "done", "failed", "cancelled")
    return {name: counts[name] for name in names}, sum(found[job_id][1] for job_id in ids)


def _left_s(context: WebContext, ids: Sequence[str], counts: dict[str, int]) -> int | None:
    names = sorted({queue_of_job(job_id) for job_id in ids})
    rate = sum(view.jobs_per_minute for view in read_queues(context.client, names) if view.workers)
    return round(60 * (counts["waiting"] + counts["running"]) / rate) if rate else None


def _summary(context: WebContext, ids: Sequence[str]) -> Iterator[str]:
    """Yield the parts of a CSV table."""
    yield ",".join(_COLUMNS) + "\n"
    for start in range(0, len(ids), _READ_AT_ONCE):
        part = ids[start : start + _READ_AT_ONCE]
        hashes = read_hashes(context.client, part)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows(_row(job_id, hashes.get(job_id)) for job_id in part)
        yield text.getvalue()


def _row(job_id: str, fields: dict[str, str] | None) -> list[str]:
    if fields is None:
        return ["", cell(job_id), "expired", *[""] * (len(_COLUMNS) - 3)]
    status = status_of(fields)
    model = ":".join(filter(None, (fields.get("model_name"), fields.get("model_version"))))
    values = (
        fields.get("original_name", ""), job_id, status, fields.get("objects", ""), fields.get("quality", ""),
        fields.get("warning", ""), last_line(fields.get("reason", "")) if status == "failed" else "", model,
        fields.get("scale", ""), utc(fields.get("created_at", "")) or "", utc(fields.get("finished_at", "")) or "",
    )  # fmt: skip
    return [cell(value) for value in values]


def _results(context: WebContext, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of the image and the key of the result of each job that is done."""
    for start in range(0, len(ids), _READ_AT_ONCE):
        part = ids[start : start + _READ_AT_ONCE]
        for status, key, name in read_fields(context.client, part, ("status", "output_file_name", "original_name")):
            if status == "done" and key:
                yield name or "", key


def _whole(text: str | None) -> int:
    try:
        return max(whole(text or "0"), 0)
    except ValueError:
        return 0
