"""Shows queues, workers and dead letters to operators, and why the jobs of a queue wait."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from redis_consumer.app import open_queue
from redis_consumer.client.standstill import explain
from redis_consumer.client.watch import read_fields
from redis_consumer.client.workers import QueueFacts, WorkerView, read_facts
from redis_consumer.queue import admin
from redis_consumer.web.access import check_operator, user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.v1.job_data import queue_of_job, utc
from redis_consumer.web.v1.jobs import no_job, seen_jobs
from redis_consumer.web.v1.kinds import known_queues
from redis_consumer.web.v1.shapes import DeadReply, JobReply, QueueReply, WorkerReply

router = APIRouter()
#: Dead letters that are listed for each queue.
_MOST_DEAD = 200


@router.get("/queues", response_model=list[QueueReply], responses=problems())
def list_queues(request: Request) -> list[dict[str, Any]]:
    """List the queues, with the reason why their jobs wait and what to do."""
    return queues_data(context_of(request))


@router.get("/workers", response_model=list[WorkerReply], responses=problems())
def list_workers(request: Request) -> list[dict[str, Any]]:
    """List the workers that are alive, with what they do or wait for."""
    check_operator(user_of(request))
    context = context_of(request)
    workers = [worker for facts in read_facts(context.client, known_queues(context)) for worker in facts.workers]
    jobs = [task.job for worker in workers for task in worker.tasks]
    rows = read_fields(context.client, jobs, ("status",))
    stages = {job: row[0] or "" for job, row in zip(jobs, rows, strict=True)}
    return [_worker(worker, stages) for worker in workers]


@router.get("/dead", response_model=list[DeadReply], responses=problems())
def list_dead(request: Request) -> list[dict[str, Any]]:
    """List dead letters: jobs that failed for a reason other than their input."""
    user = user_of(request)
    check_operator(user)
    context = context_of(request)
    ids = [
        job_id
        for name in known_queues(context)
        for job_id in admin.dead_letters(open_queue(context.client, name), _MOST_DEAD)
    ]
    jobs = seen_jobs(context, user, ids)
    rows = read_fields(context.client, ids, ("updated_at",))
    since = {job_id: utc(row[0] or "") for job_id, row in zip(ids, rows, strict=True)}
    return [{**jobs[job_id], "dead_since": since[job_id]} for job_id in ids if job_id in jobs]


@router.post("/dead/{job_id:path}/again", response_model=JobReply, responses=problems(404))
def retry_dead(request: Request, job_id: str) -> dict[str, Any]:
    """Return a dead letter to its queue, with all its attempts."""
    user = user_of(request)
    check_operator(user)
    context = context_of(request)
    if not queue_of_job(job_id) or not admin.retry(open_queue(context.client, queue_of_job(job_id)), job_id):
        raise _no_letter(job_id)
    job = seen_jobs(context, user, [job_id]).get(job_id)
    if job is None:
        raise no_job(job_id)
    return job


@router.delete("/dead/{job_id:path}", status_code=204, responses=problems(404))
def drop_dead(request: Request, job_id: str) -> Response:
    """Remove a job from the dead letters; it stays failed."""
    check_operator(user_of(request))
    context = context_of(request)
    if not queue_of_job(job_id) or not admin.drop(open_queue(context.client, queue_of_job(job_id)), job_id):
        raise _no_letter(job_id)
    return Response(status_code=204)


def queues_data(context: WebContext) -> list[dict[str, Any]]:
    """Return QUEUES of the API."""
    timeout_s = context.settings.job_timeout
    return [_queue(facts, timeout_s) for facts in read_facts(context.client, known_queues(context))]


def _queue(facts: QueueFacts, job_timeout_s: float) -> dict[str, Any]:
    view, found = facts.view, explain(facts, job_timeout_s=job_timeout_s)
    return {
        "name": view.queue,
        "waiting": view.waiting,
        "running": view.running,
        "oldest_s": None if view.oldest_waiting_s is None else round(view.oldest_waiting_s),
        "per_minute": round(view.jobs_per_minute, 2),
        "workers": len(facts.workers),
        "sentence": found.sentence,
        "cause": found.cause,
        "what_to_do": found.what_to_do,
        "level": found.level,
    }


def _worker(worker: WorkerView, stages: dict[str, str]) -> dict[str, Any]:
    slots = [{"job": task.job, "stage": stages.get(task.job, ""), "for_s": task.for_s} for task in worker.tasks]
    return {
        "name": worker.name,
        "slots": [*slots, *[{"job": "", "stage": "", "for_s": 0.0}] * min(worker.idle, 1000)],
        "waits_for": worker.waits_for,
        "memory_mb": worker.memory_mb,
        "queue": worker.queue,
        "since": worker.since,
    }


def _no_letter(job_id: str) -> Problem:
    return Problem(404, f"{job_id[:200]!r} is no dead letter.", hint="GET /api/v1/dead lists them.")
