"""Creates, lists, reads, cancels and repeats jobs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from redis_consumer.app import open_queue
from redis_consumer.client.submit import prepare_job, push_commands
from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job, ModelId, unreadable_archive
from redis_consumer.queue import admin
from redis_consumer.text import decimal
from redis_consumer.web.access import User, may_see, user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.once import IdempotencyKey, once
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.v1 import regions
from redis_consumer.web.v1.job_data import file_url, given_fields, queue_of_job, read_hashes, read_jobs
from redis_consumer.web.v1.kinds import QUEUES_KEY, kind_names, kinds_of, option_texts
from redis_consumer.web.v1.shapes import Changes, JobPage, JobReply, NewJob, Region, Status

#: Routes below a job, and those of a job itself: keys of jobs can contain slashes, so these are matched last.
router, bare = APIRouter(), APIRouter()

#: Jobs of a page, and of the history of a user.
PAGE, MOST_HISTORY = 50, 10_000
#: Jobs that are read for a page of jobs of one status.
_MOST_READ = 1000
#: Jobs that are created in one round trip.
_PUSHED_AT_ONCE = 200
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The job was created.",
        "headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}},
    }
}


@router.post("/jobs", status_code=201, response_model=JobReply, responses={**problems(404, 409, 429), **_CREATED})
def create_job(request: Request, body: NewJob, idempotency_key: IdempotencyKey = "") -> Response:
    """Create a job for an upload, or for the key of an object in the bucket."""
    context, user = context_of(request), user_of(request)
    with once(context, user, idempotency_key, body.model_dump_json()) as known:
        if not known:
            fields = {**input_fields(context, user, body.upload, body.key), **settings_fields(context, body)}
            known.append(push(context, user, body.kind, fields, body.region))
    return _created(context, user, known[0])


@router.get("/jobs", response_model=JobPage, responses=problems(404))
def list_jobs(
    request: Request,
    batch: Annotated[str, Query(max_length=255)] = "",
    status: Status | None = None,
    cursor: Annotated[str, Query(max_length=100, pattern=r"^(\d{1,12})?$")] = "",
) -> dict[str, Any]:
    """List the jobs of the user, or of a batch, the latest first."""
    context, user = context_of(request), user_of(request)
    if batch:
        check_batch(context, user, batch)
    key = batch_jobs_key(batch) if batch else history_key(user.name)
    items, place = [], int(cursor or 0)
    for _ in range(_MOST_READ // PAGE):
        ids = context.client.zrevrange(key, place, place + PAGE - 1)
        found = seen_jobs(context, user, ids)
        for job_id in ids:
            place += 1
            job = found.get(job_id)
            if job is not None and status in (None, job["status"]):
                items.append(job)
                if len(items) == PAGE:
                    return {"items": items, "next": str(place)}
        if len(ids) < PAGE:
            return {"items": items, "next": ""}
    return {"items": items, "next": str(place)}


@router.post(
    "/jobs/{job_id:path}/again", status_code=201, response_model=JobReply,
    responses={**problems(404, 409, 429), **_CREATED},
)  # fmt: skip
def repeat_job(request: Request, job_id: str, body: Changes, idempotency_key: IdempotencyKey = "") -> Response:
    """Run a job again with changed settings, without another upload. The new job names the first in ``again_of``."""
    context, user = context_of(request), user_of(request)
    fields = hash_of(context, user, job_id)
    with once(context, user, idempotency_key, f"{job_id} {body.model_dump_json()}") as known:
        if not known:
            known.append(push_again(context, user, job_id, fields, body))
    return _created(context, user, known[0])


@bare.get("/jobs/{job_id:path}", response_model=JobReply, responses=problems(404))
def read_job(request: Request, job_id: str) -> dict[str, Any]:
    """Read a job. ``expired`` means that its result was deleted."""
    context, user = context_of(request), user_of(request)
    job = seen_jobs(context, user, [job_id]).get(job_id)
    if job is None:
        raise no_job(job_id)
    if job["result"] is not None:
        size = context.storage.size(context.client.hget(job_id, "output_file_name") or "")
        if size is None:
            job |= {"status": "expired", "result": None, "files": []}
        else:
            job["result"]["size"] = size
    return job


@bare.delete("/jobs/{job_id:path}", response_model=JobReply, responses=problems(404, 409))
def cancel_job(request: Request, job_id: str) -> dict[str, Any]:
    """Cancel a job: a waiting one at once, a running one at its next step."""
    context, user = context_of(request), user_of(request)
    hash_of(context, user, job_id)
    if cancel(context, job_id) == "final":
        raise Problem(409, "The job has ended already.", hint="Its result can be downloaded or ignored.")
    return read_job(request, job_id)


def cancel(context: WebContext, job_id: str) -> str:
    """Cancel a job; see `redis_consumer.queue.admin.cancel`."""
    return admin.cancel(open_queue(context.client, queue_of_job(job_id)), job_id)


def no_job(job_id: str) -> Problem:
    """Return the problem of an unknown job."""
    return Problem(404, f"There is no job {job_id[:200]!r}, or it has expired.", hint="GET /api/v1/jobs lists jobs.")


def hash_of(context: WebContext, user: User, job_id: str) -> dict[str, str]:
    """Return the hash of a job.

    Raises:
        Problem: 404: there is none, or the user may not see it.
    """
    fields = read_hashes(context.client, [job_id]).get(job_id)
    if fields is None or not may_see(user, fields):
        raise no_job(job_id)
    return fields


def seen_jobs(context: WebContext, user: User, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return jobs as JOB by id, without those that don't exist or that the user may not see."""
    jobs = read_jobs(context.client, ids, kind_names(context), context.settings.job_timeout)
    return {job_id: job for job_id, job in jobs.items() if may_see(user, job)}


def _created(context: WebContext, user: User, job_id: str) -> Response:
    job = seen_jobs(context, user, [job_id]).get(job_id)
    if job is None:
        raise no_job(job_id)
    return JSONResponse(job, 201, {"Location": file_url(job_id, "").removesuffix("/files/")})


def history_key(owner: str) -> str:
    """Return the key of the jobs of a user, by the time of their creation."""
    return f"redis-consumer:jobs:{owner}"


def batch_jobs_key(batch: str) -> str:
    """Return the key of the jobs of a batch, by the time of their creation."""
    return f"redis-consumer:batch-jobs:{batch}"


def check_batch(context: WebContext, user: User, batch: str) -> dict[str, str]:
    """Return the hash of a batch.

    Raises:
        Problem: 404: there is none, or the user may not see it.
    """
    key = f"redis-consumer:batch:{batch}"
    fields: dict[str, str] = context.client.hgetall(key)
    if not fields or not may_see(user, fields):
        raise Problem(404, f"There is no batch {batch[:100]!r}, or it has expired.")
    return fields


def input_fields(context: WebContext, user: User, upload: str, key: str = "") -> dict[str, str]:
    """Return the fields of a job for its input.

    Raises:
        Problem: neither or both are given, it doesn't exist, or the user may not read it.
    """
    if bool(upload) == bool(key):
        raise Problem(422, "give either an upload or the key of an object", field="upload")
    if upload:
        return _upload_fields(context, user, upload)
    if not user.is_operator:
        raise Problem(403, "Only operators may name objects in the bucket.", field="key", hint="Upload the file first.")
    name = context.storage.key_of(key)
    if not name.rstrip("/").lower().endswith(".zarr") and not context.storage.exists(name):
        raise Problem(404, f"The bucket has no object {name[:200]!r}.", field="key")
    url = context.storage.get_public_url(name)
    return {"input_file_name": name, "url": url, "original_name": PurePosixPath(name).name}


def _upload_fields(context: WebContext, user: User, upload: str) -> dict[str, str]:
    fields: dict[str, str] = context.client.hgetall(f"redis-consumer:upload:{upload}")
    if not fields or not may_see(user, fields):
        raise Problem(404, "There is no such upload, or it has expired.", field="upload", hint="Upload the file again.")
    if not fields.get("key"):
        raise Problem(409, "The upload is not complete.", field="upload", hint="Send its other pieces first.")
    if problem := unreadable_archive(fields.get("name", "")):
        detail, _, hint = problem.partition("; ")
        raise Problem(422, detail, field="upload", hint=hint)
    url = context.storage.get_public_url(fields["key"])
    return {"input_file_name": fields["key"], "url": url, "original_name": fields.get("name", ""), "upload": upload}


def settings_fields(context: WebContext, body: NewJob | Changes | Any) -> dict[str, str]:
    """Return the fields of a job for its model, options and outputs; only those that are given.

    Raises:
        Problem: a value is unknown or wrong; its ``field`` names it.
    """
    kind = kind_of(context, body.kind)
    fields = option_texts(kind["options_schema"], body.options)
    if body.outputs is not None:
        unknown = [name for name in body.outputs if name not in (*kind["outputs"], "all")]
        if unknown:
            hint = f"Outputs of this kind: {', '.join(kind['outputs']) or 'none'}."
            raise Problem(422, f"{unknown[0][:50]!r} is unknown", field="outputs", hint=hint)
        fields["outputs"] = ",".join(body.outputs)
    if body.model is not None:
        fields |= _model_fields(body.model)
    _check(fields)
    return fields


def _model_fields(model: str) -> dict[str, str]:
    if not model:
        return {"model_name": "", "model_version": ""}
    name, _, version = model.partition(":")
    try:
        ModelId.of(name.strip(), version.strip())
    except InvalidJob as error:
        raise _refusal(error, "model") from None
    return {"model_name": name.strip(), "model_version": version.strip()}


def _check(fields: Mapping[str, str]) -> None:
    """Check values as a worker does, before the job is created."""
    job = Job("", fields)
    for name in ("scale", "object_diameter_px", "channels", "dimension_order", "z", "label"):
        try:
            getattr(job, name)
        except InvalidJob as error:
            raise _refusal(error, f"options.{name}") from None
    if fields.get("scale") and decimal(fields["scale"]) > 100:
        raise Problem(422, "must be at most 100", field="options.scale")


def _refusal(error: InvalidJob, field: str) -> Problem:
    """Return the problem of a value, under the name that it has in the request."""
    detail, _, hint = str(error).partition(": ")[2].partition("; ")
    return Problem(422, detail, field=field, hint=hint)


def kind_of(context: WebContext, name: str) -> dict[str, Any]:
    """Return a kind, by default that of the server's settings.

    Raises:
        Problem: 422: there is none.
    """
    kinds = kinds_of(context)
    found = kinds.get(name or context.settings.consumer_type) or (None if name else kinds.get("image"))
    if found is None:
        raise Problem(422, f"{name[:50]!r} is no kind of job", field="kind", hint=f"Kinds: {', '.join(kinds)}.")
    return found


def push(context: WebContext, user: User, kind: str, fields: Mapping[str, str], region: Region | None = None) -> str:
    """Create a job, note it in the history of its owner, and return its id; see `push_all`."""
    if region is not None:
        check_waiting(context, user)
        fields = {**fields, **regions.cut_out(context, fields, region)}
    [job_id] = push_all(context, user, kind, [fields])
    return job_id


def push_all(
    context: WebContext, user: User, kind: str, inputs: Sequence[Mapping[str, str]], batch: str = ""
) -> list[str]:
    """Create jobs, note them in the history of their owner and in their batch, and return their ids.

    Raises:
        Problem: 429: the user has too many jobs that have not ended.
        RedisUnavailable: no reply; some may exist.
    """
    check_waiting(context, user, len(inputs))
    queue = kind_of(context, kind)["queue"].removesuffix("-zip")
    ours = {name: text for name, text in (("owner", user.name), ("batch", batch)) if text}
    keys = [history_key(user.name), *([batch_jobs_key(batch)] if batch else [])]
    ids: list[str] = []
    for start in range(0, len(inputs), _PUSHED_AT_ONCE):
        commands: list[Sequence[Any]] = []
        for fields in inputs[start : start + _PUSHED_AT_ONCE]:
            texts = {**{name: text for name, text in fields.items() if text}, **ours}
            name = PurePosixPath(texts.get("original_name") or texts["input_file_name"]).name or "input"
            sent = prepare_job(Path(name), queue, texts)
            ids.append(sent.job_id)
            moment = time.time() + 1e-6 * len(ids)
            # The note first: a job without a note would not be found.
            commands += [("ZADD", key, moment, sent.job_id) for key in keys]
            commands += push_commands(sent)
        commands += [("EXPIRE", key, context.options.history_s) for key in keys]
        commands.append(("ZREMRANGEBYRANK", keys[0], 0, -MOST_HISTORY - 1))
        context.client.batch(*commands)
    context.client.sadd(QUEUES_KEY, *{queue_of_job(job_id) for job_id in ids})
    return ids


def push_again(context: WebContext, user: User, job_id: str, fields: Mapping[str, str], body: Changes) -> str:
    """Create a job like another one with changes, and return its id."""
    kind = body.kind or kind_names(context)(queue_of_job(job_id))
    given = given_fields(fields)
    if body.region is not None and (whole := given.pop("input_region", "")):
        raise Problem(
            422, f"the job is of the region {whole} already", field="region", hint="Repeat the job of the whole image."
        )
    changed = settings_fields(context, body.model_copy(update={"kind": kind if kind in kinds_of(context) else ""}))
    return push(context, user, kind, {**given, **changed, "again_of": job_id}, body.region)


def check_waiting(context: WebContext, user: User, more: int = 1) -> None:
    """Refuse jobs of a user who has too many that have not ended.

    Raises:
        Problem: 429.
    """
    most = context.options.waiting_jobs
    if not most or user.is_operator:
        return
    ids = context.client.zrevrange(history_key(user.name), 0, most + PAGE)
    open_jobs = [job for job in read_hashes(context.client, ids).values() if job["status"] not in ("done", "failed")]
    if len(open_jobs) + more > most:
        raise Problem(
            429, f"You have {len(open_jobs)} jobs that have not ended; {most} are allowed.",
            hint="Wait until some have ended, or cancel them.",
        )  # fmt: skip
