"""Explains why the jobs of a queue wait, from what Redis holds about the queue and its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from redis_consumer.client.workers import QueueFacts, Task, WorkerView
from redis_consumer.text import printable

#: Times that a job was given back or run, from which it counts as one that comes back.
MANY_RETURNS = 3
#: Services that a worker can wait for, by the error that it publishes, with what to do.
_SERVICES = {
    "ModelServerUnavailable": (
        "model_server", "the model server",
        "Check that the model server at MODEL_SERVER runs and has the model; `redis-consumer doctor` tests the "
        "connection.",
    ),
    "StorageUnavailable": (
        "bucket", "the bucket",
        "Check STORAGE_BUCKET and the credentials of the workers; `redis-consumer doctor` tests the connection.",
    ),
    "RedisUnavailable": ("redis", "Redis", "Check the connection of the workers to Redis, and its memory and disk."),
    "MachineUnavailable": (
        "machine", "their machine",
        "Check the disk space of the workers' temporary folder, and their limits for files and processes.",
    ),
    "SettingsError": ("settings", "a corrected setting", "Correct the setting that the workers name in their logs."),
}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """Why a queue is as it is.

    Attributes:
        level: ``ok``, ``warn`` (jobs are late, or may be) or ``bad`` (no job can end until someone acts).
        cause: a fixed word for programs.
        sentence: for users.
        what_to_do: for operators; empty if there is nothing to do.
    """

    level: str
    cause: str
    sentence: str
    what_to_do: str = ""


def explain(facts: QueueFacts, *, job_timeout_s: float = 3600.0) -> Explanation:
    """Decide why the jobs of a queue wait. The first cause that applies is given.

    Args:
        facts: see `read_facts`.
        job_timeout_s: seconds for one run of a job, ``JOB_TIMEOUT``.
    """
    found = (rule(facts, job_timeout_s) for rule in _RULES)
    return next(explanation for explanation in found if explanation is not None)


def explained(found: Mapping[str, Explanation]) -> list[str]:
    """Return a line for each queue whose jobs are late, or may be: why, and what to do."""
    return [f"{printable(each.sentence)} {each.what_to_do}".strip() for each in found.values() if each.level != "ok"]


def _refused_writes(facts: QueueFacts, _: float) -> Explanation | None:
    if not facts.refusal:
        return None
    return Explanation(
        "bad",
        "redis_read_only",
        f"Redis refuses writes ({facts.refusal}), so no job can start or end.",
        "Point REDIS_HOST at the master, or free its memory or disk; see `redis-cli info replication` and its log.",
    )


def _foreign(facts: QueueFacts, _: float) -> Explanation | None:
    if facts.key_type not in ("list", "none"):
        return Explanation(
            "bad",
            "foreign",
            f"The key {facts.view.queue} holds a {facts.key_type} of other software, not a queue.",
            "Set QUEUE to another name, or delete the key.",
        )
    if facts.sampled and facts.strange == facts.sampled:
        return Explanation(
            "warn",
            "foreign",
            f"The next {facts.sampled} entries of {facts.view.queue} are not jobs of this software.",
            "Set QUEUE to the queue of the producers, or let their own workers take these entries.",
        )
    return None


def _without_hash(facts: QueueFacts, _: float) -> Explanation | None:
    if not facts.gone or facts.gone < facts.sampled:
        return None
    return Explanation(
        "bad" if not facts.view.workers else "warn",
        "keys_without_hash",
        f"The next {facts.sampled} keys in {facts.view.queue} have no job any more: their hashes expired or were "
        "deleted.",
        "Start a worker: it drops such keys. Check that producers write the hash before they push the key, and that "
        "Redis evicts no keys (maxmemory-policy noeviction).",
    )


def _no_worker(facts: QueueFacts, _: float) -> Explanation | None:
    view = facts.view
    if facts.workers or not (view.waiting or view.running):
        return None
    if facts.others:
        return Explanation(
            "warn",
            "other_workers",
            f"Only workers of other software take jobs from {view.queue}: {_count(facts.others, 'job')} with them.",
            "Look at the logs of these workers; they do not publish what they do.",
        )
    if facts.lost is None:
        sentence = f"No worker takes jobs from {view.queue}."
    else:
        name, moment = facts.lost
        sentence = f"No worker takes jobs from {view.queue} since {moment} UTC; the last one, {name}, was lost."
    kind = "zip" if view.queue.endswith("-zip") else "image"
    return Explanation(
        "bad",
        "no_worker",
        sentence,
        f"Start one with `redis-consumer run --serve {kind}={view.queue}`, or in a cluster look at "
        "`kubectl get pods` and the events of the worker's deployment.",
    )


def _waits_for_service(facts: QueueFacts, _: float) -> Explanation | None:
    waiting = [worker.waits_for for worker in facts.workers]
    if not waiting or not all(waiting):
        return None
    error, _colon, detail = waiting[0].partition(":")
    cause, service, advice = _SERVICES.get(
        error, ("dependency", "a service", "Look at the logs of the workers: they say what they wait for.")
    )
    return Explanation(
        "bad",
        f"waits_for_{cause}",
        f"{_all_of(facts.workers)} for {service}: {detail.strip() or error}.",
        advice,
    )


def _stopping(facts: QueueFacts, _: float) -> Explanation | None:
    told = [worker for worker in facts.workers if worker.is_told]
    if not told or len(told) < len(facts.workers) or not facts.view.waiting:
        return None
    if all(worker.is_stopping for worker in told):
        return Explanation(
            "warn",
            "workers_stop",
            "All workers stop and take no more jobs.",
            "Wait for new workers, or start one.",
        )
    if all(worker.starting and not worker.idle and not worker.tasks for worker in told):
        return Explanation("warn", "workers_start", "The workers start; they take jobs in a moment.")
    return None


def _beyond_time(facts: QueueFacts, job_timeout_s: float) -> Explanation | None:
    late = max(_tasks(facts), key=lambda pair: pair[1].for_s, default=None)
    if late is None or late[1].for_s <= job_timeout_s:
        return None
    worker, task = late
    return Explanation(
        "bad" if facts.view.waiting else "warn",
        "job_beyond_time",
        f"Job {task.job} runs for {_duration(task.for_s)} on {worker.name}, longer than the allowed "
        f"{_duration(job_timeout_s)}.",
        "Its worker should have ended it: look at that worker's log, and cancel the job or restart the worker.",
    )


def _comes_back(facts: QueueFacts, _: float) -> Explanation | None:
    if facts.returns < MANY_RETURNS:
        return None
    return Explanation(
        "warn",
        "jobs_come_back",
        f"Jobs come back to {facts.view.queue} again and again: {facts.returned_job} for the "
        f"{facts.returns}. time{f' ({facts.last_error})' if facts.last_error else ''}.",
        "Look at the field last_error of the job and at the logs of the workers; cancel the job if its input is the "
        "cause.",
    )


def _busy(facts: QueueFacts, _: float) -> Explanation | None:
    view = facts.view
    if not view.waiting or not facts.workers:
        return None
    told = [worker for worker in facts.workers if worker.is_told]
    if any(worker.idle and not worker.waits_for for worker in told):
        return Explanation("ok", "working", f"A worker takes the next job of {view.queue} now.")
    if view.running or told:
        rate = f"{view.jobs_per_minute:.3g} jobs a minute end" if view.jobs_per_minute else "no job ended lately"
        return Explanation(
            "ok" if view.jobs_per_minute else "warn",
            "slots_busy",
            f"All workers are busy: {view.running} running, {view.waiting} waiting, {rate}.",
            "Start more workers, or raise CONCURRENCY, for shorter waits.",
        )
    return Explanation(
        "warn",
        "not_known",
        f"{_count(len(facts.workers), 'worker')} of {view.queue} do not say what they do; an older version runs there.",
        "Update the workers, or look at their logs.",
    )


def _quiet(facts: QueueFacts, _: float) -> Explanation:
    view = facts.view
    if view.running:
        return Explanation("ok", "working", f"{_count(view.running, 'job')} running, none waiting.")
    if not facts.workers:
        return Explanation("ok", "idle", "No job waits, and no worker is there.")
    return Explanation("ok", "idle", f"No job waits; {_count(len(facts.workers), 'worker')} ready.")


_RULES: tuple[Callable[[QueueFacts, float], Explanation | None], ...] = (
    _refused_writes, _foreign, _no_worker, _without_hash, _waits_for_service, _stopping, _beyond_time, _comes_back,
    _busy, _quiet,
)  # fmt: skip


def _tasks(facts: QueueFacts) -> Iterator[tuple[WorkerView, Task]]:
    return ((worker, task) for worker in facts.workers for task in worker.tasks)


def _all_of(workers: tuple[WorkerView, ...]) -> str:
    return f"Worker {workers[0].name} waits" if len(workers) == 1 else f"All {len(workers)} workers wait"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
